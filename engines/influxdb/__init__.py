"""InfluxDB 1.x."""

from engines.engine import Engine
from engines.influxdb.grants import grants
from engines.influxdb.requirements import REQUIREMENTS
from engines.versions import Versions

__all__ = ["ENGINE"]

ENGINE = Engine(
    name="influxdb",
    title="InfluxDB",
    schemes=("influxdb", "https+influxdb"),
    default_port=8086,
    package="engines.influxdb",
    server="engines.influxdb.server:InfluxServer",
    requirements=REQUIREMENTS,
    grants=grants,
    backups="engines.influxdb.backup:InfluxBackups",
    health="engines.influxdb.health:InfluxHealth",
    versions={"influxdb": Versions(oldest=(1,), before=(2,))},
    users="engines.influxdb.users:InfluxUsers",
)
