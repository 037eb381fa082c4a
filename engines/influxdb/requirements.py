"""The privileges that the actions need, by InfluxDB's own names.

https://docs.influxdata.com/influxdb/v1.8/administration/authentication_and_authorization/
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engines.engine import Requirement
from engines.errors import PrivilegeMissing
from engines.influxdb.influxql import identifier

if TYPE_CHECKING:
    from engines.influxdb.server import InfluxServer


async def may_read(server: InfluxServer) -> bool:
    """Tell whether the account has READ on the logical database."""
    try:
        await server.read(f"SHOW RETENTION POLICIES ON {identifier(server.address.database)}")
    except PrivilegeMissing:
        return False
    return True


async def may_write(server: InfluxServer) -> bool:
    """Tell whether the account has WRITE on the logical database."""
    try:
        await server.write_nothing()
    except PrivilegeMissing:
        return False
    return True


async def is_admin(server: InfluxServer) -> bool:
    """Tell whether the account is an admin, by a statement that only one may run."""
    try:
        await server.read("SHOW SUBSCRIPTIONS")
    except PrivilegeMissing:
        return False
    return True


def grant_all_on_database(server: InfluxServer) -> str:
    """Grant READ and WRITE in one: a second GRANT takes the place of the first."""
    user = identifier(server.address.user or "valet")
    return f"GRANT ALL ON {identifier(server.address.database)} TO {user}"


def grant_admin(server: InfluxServer) -> str:
    """Make the account an admin."""
    user = identifier(server.address.user or "valet")
    return f"GRANT ALL PRIVILEGES TO {user} (only an admin may create retention policies in InfluxDB 1.x)"


def grant_admin_for_counters(server: InfluxServer) -> str:
    """Make the account an admin: nobody else sees SHOW STATS."""
    user = identifier(server.address.user or "valet")
    return f"GRANT ALL PRIVILEGES TO {user} (only an admin sees the counters of InfluxDB 1.x)"


REQUIREMENTS: dict[str, Requirement] = {
    "READ": Requirement(name="READ", met=may_read, remedy=grant_all_on_database),
    "WRITE": Requirement(name="WRITE", met=may_write, remedy=grant_all_on_database),
    "ALL PRIVILEGES": Requirement(name="ALL PRIVILEGES", met=is_admin, remedy=grant_admin),
}
