"""`scripts/clients`: the official clients, run as they are, against a dbvalet with four live engines."""
