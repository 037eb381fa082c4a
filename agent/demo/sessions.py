"""Sessions on the demo's servers through the bare drivers, which dbvalet has no part in."""

from __future__ import annotations

import psycopg
import pymysql
import requests
from influxdb import InfluxDBClient
from influxdb.exceptions import InfluxDBClientError, InfluxDBServerError
from pymongo.errors import PyMongoError

DRIVER_ERRORS = (
    psycopg.Error,
    pymysql.MySQLError,
    PyMongoError,
    InfluxDBClientError,
    InfluxDBServerError,
    requests.RequestException,
)

ANSWER_SECONDS = 10.0


def postgresql_address(port: int, password: str, database: str = "app") -> str:
    """Say to libpq where to log in as the application."""
    return f"postgresql://app:{password}@127.0.0.1:{port}/{database}"


def mysql_session(
    port: int, user: str, password: str, flags: int = 0
) -> pymysql.connections.Connection[pymysql.cursors.Cursor]:
    """Log in; `flags` are the protocol's, as in `pymysql.constants.CLIENT`."""
    return pymysql.connect(
        host="127.0.0.1", port=port, user=user, password=password, client_flag=flags, autocommit=True
    )


def mongodb_address(port: int, password: str) -> str:
    """Say to pymongo where to log in as the application."""
    return f"mongodb://app:{password}@127.0.0.1:{port}/?authSource=admin"


def influxdb_session(port: int, user: str, password: str) -> InfluxDBClient:
    """Make a client of HTTP, whose session no proxy of the environment comes between."""
    session = requests.Session()
    session.trust_env = False
    return InfluxDBClient(
        "127.0.0.1", port, user, password, database="app", timeout=ANSWER_SECONDS, retries=1, session=session
    )
