"""Backups: dumped by an engine, packed, kept in a storage, brought back, thinned out."""
