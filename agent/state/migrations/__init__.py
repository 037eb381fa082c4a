"""How the state came to its tables, one step a module; they go forward only."""
