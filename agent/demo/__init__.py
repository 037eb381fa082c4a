"""A tour of dbvalet on real engines that need no installation: what `dbvalet demo` runs."""
