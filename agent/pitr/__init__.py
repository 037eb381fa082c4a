"""Point-in-time recovery: what is remembered of a cluster's past, and the operation that brings it back to an instant.

api.pitr ──> clusters.Clusters (recovery of each database, its timelines and markers) ──> record (rows)
         ──> operations ──> restore.RestoreToInstant (its steps: plan; what each does to the server: moves) ──> Clusters
"""
