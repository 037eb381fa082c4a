"""`scripts/bench`: dbvalet beside bare drivers and pgbench, on the same live servers, in one run."""
