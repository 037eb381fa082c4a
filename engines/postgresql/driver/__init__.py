"""psycopg: sessions that are kept, one statement at a time on each, and the causes behind its errors.

This is the one package that imports the driver; `server` imports it when a session is first needed.
"""

from engines.postgresql.driver.sessions import Sessions

__all__ = ["Sessions"]
