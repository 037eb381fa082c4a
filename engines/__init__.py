"""Everything that speaks to a database server. Works as a library: it imports nothing from `agent` and knows no HTTP."""
