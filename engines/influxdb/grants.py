"""The script that makes a sufficient account for InfluxDB."""

from __future__ import annotations

from engines.engine import GrantsFor
from engines.influxdb.influxql import identifier, literal

SCRIPT = """\
-- Makes the account of dbvalet on an InfluxDB 1.x server. Run it once as an admin:
--   influx -host HOST -username ADMIN -password '' < THIS_FILE
-- Running it again changes nothing. When the account is there with another password or is no admin, it says
-- "user already exists": then SET PASSWORD FOR and GRANT ALL PRIVILEGES TO that account do the same.
--
-- It has to be an admin: InfluxDB 1.x lets nobody else create a retention policy, not even who has ALL on the database.
-- Where add-retention-policy is not wanted, leave out WITH ALL PRIVILEGES: the second statement is enough for
-- list-retention-policies and del-retention-policy.

CREATE USER {user} WITH PASSWORD {password} WITH ALL PRIVILEGES;
GRANT ALL ON {database} TO {user}
"""


def grants(wanted: GrantsFor) -> str:
    """Write the script, as InfluxQL."""
    return SCRIPT.format(
        user=identifier(wanted.user),
        password=literal(wanted.password or "CHANGE-ME"),
        database=identifier(wanted.database),
    )
