"""Everything that speaks to a database server: a library that imports nothing from `agent` and knows no HTTP."""
