"""Point-in-time recovery of a PostgreSQL server with pgBackRest.

agent ──> server.PostgresRecovery ──> pgbackrest (repository, restore), control (stop, start), SQL (marker, promotion)
"""
