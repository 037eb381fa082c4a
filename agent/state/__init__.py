"""What dbvalet remembers. The toolkit for it is imported when more than a few values is needed: see `state`."""
