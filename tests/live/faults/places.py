"""The place of each engine."""

from tests.live.faults.influxdb import InfluxPlace
from tests.live.faults.mongodb import MongoPlace
from tests.live.faults.mysql import MysqlPlace
from tests.live.faults.place import Place
from tests.live.faults.postgresql import PostgresPlace
from tests.live.images import Engine

PLACES: dict[Engine, type[Place]] = {
    "postgresql": PostgresPlace,
    "mysql": MysqlPlace,
    "mongodb": MongoPlace,
    "influxdb": InfluxPlace,
}
