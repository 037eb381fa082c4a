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

UPDATE_ONLY = """\
-- Brings an account of dbvalet that is there on an InfluxDB 1.x server up to date. Run it as an admin:
--   influx -host HOST -username ADMIN -password '' < THIS_FILE
-- Written without --password-file of `dbvalet grants`: the password stays as it is, and no account is made. Where it is
-- not there, both statements fail.
--
-- It has to be an admin: InfluxDB 1.x lets nobody else create a retention policy, not even who has ALL on the database.
-- Where add-retention-policy is not wanted, leave out the first statement.

GRANT ALL PRIVILEGES TO {user};
GRANT ALL ON {database} TO {user}
"""


def grants(wanted: GrantsFor) -> str:
    """Write the script, as InfluxQL."""
    user, database = identifier(wanted.user), identifier(wanted.database)
    if not wanted.password:
        return UPDATE_ONLY.format(user=user, database=database)
    return SCRIPT.format(user=user, password=literal(wanted.password), database=database)
