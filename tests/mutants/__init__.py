"""How many small changes to the engine packages make a test fail: `scripts/mutants`."""
