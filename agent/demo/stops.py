"""What the tour shows of each engine, by its name."""

from __future__ import annotations

from collections.abc import Callable

from agent.demo import tour_influxdb, tour_mongodb, tour_mysql, tour_postgresql
from agent.demo.accounts import Deployment
from agent.demo.guide import Guide

STOPS: dict[str, Callable[[Guide, Deployment], None]] = {
    "postgresql": tour_postgresql.visit,
    "mysql": tour_mysql.visit,
    "mongodb": tour_mongodb.visit,
    "influxdb": tour_influxdb.visit,
}
