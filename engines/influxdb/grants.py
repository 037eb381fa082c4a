"""The script that makes a sufficient account for InfluxDB."""

from __future__ import annotations

from engines.engine import GrantsFor
from engines.influxdb.influxql import identifier, literal

SCRIPT = """\
-- Makes the account of dbvalet on an InfluxDB 1.x server. Run it once as an admin:
--   influx -host HOST -username ADMIN -password '' < THIS_FILE
-- CREATE USER is silent when the account is there with the same password, and fails with "user already exists" when it
-- is there with another; then run the other statements alone.
--
-- It has to be an admin: InfluxDB 1.x lets nobody else create a retention policy, not even who has ALL on the database.
-- Where add-retention-policy is not wanted, leave out the third statement: the second is enough for
-- list-retention-policies and del-retention-policy.

CREATE USER {user} WITH PASSWORD {password};
GRANT ALL ON {database} TO {user};
GRANT ALL PRIVILEGES TO {user}
"""


def grants(wanted: GrantsFor) -> str:
    """Write the script, as InfluxQL."""
    return SCRIPT.format(
        user=identifier(wanted.user),
        password=literal(wanted.password or "CHANGE-ME"),
        database=identifier(wanted.database),
    )
