"""The audit: one line for each thing that was changed or was to be, in a chain that shows any tampering."""
