"""Work that outlives its request: kept in the state, run by one dbvalet, taken over when that one dies."""
