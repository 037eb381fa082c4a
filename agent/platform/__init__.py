"""What clients ask of the platform around the databases: short-lived tokens for a static one."""
