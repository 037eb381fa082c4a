"""The same reads, and a write, through a bare driver with one kept connection.

`python -m tests.bench.bare ENGINE SECONDS`, with the URL in BENCH_URL.
Prints one JSON object as `tests.bench.load` does.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable

from engines.address import Address, parse_address
from tests.bench.figures import summary


def postgresql(address: Address) -> Callable[[], object]:
    import psycopg

    from engines.postgresql.queries import LIST_QUERIES

    connection = psycopg.connect(address.url, autocommit=True)
    return lambda: connection.execute(LIST_QUERIES, prepare=True).fetchall()


def mysql(address: Address) -> Callable[[], object]:
    import pymysql

    connection = pymysql.connect(
        host=address.host, port=address.port, user=address.user, password=address.password or "", autocommit=True
    )
    cursor = connection.cursor()

    def read() -> object:
        cursor.execute("SELECT @@GLOBAL.sql_mode")
        return cursor.fetchall()

    return read


def mysql_write(address: Address) -> Callable[[], object]:
    import pymysql

    connection = pymysql.connect(
        host=address.host, port=address.port, user=address.user, password=address.password or "", autocommit=True
    )
    cursor = connection.cursor()
    return lambda: cursor.execute("SET PERSIST sql_mode = 'ANSI_QUOTES'")


def mongodb(address: Address) -> Callable[[], object]:
    import pymongo

    client: pymongo.MongoClient[dict[str, object]] = pymongo.MongoClient(address.url)
    return lambda: client.admin.command("listDatabases", nameOnly=True)


def influxdb(address: Address) -> Callable[[], object]:
    import influxdb

    client = influxdb.InfluxDBClient(
        address.host, address.port, address.user, address.password, address.database, retries=1
    )
    return lambda: client.get_list_retention_policies(address.database)


READS = {
    "postgresql": postgresql,
    "mysql": mysql,
    "mongodb": mongodb,
    "influxdb": influxdb,
    "mysql-write": mysql_write,
}


def main() -> None:
    engine, seconds = sys.argv[1], float(sys.argv[2])
    read = READS[engine](parse_address(os.environ["BENCH_URL"], 0))
    for _ in range(10):
        read()
    took: list[float] = []
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        asked = time.perf_counter()
        read()
        took.append(time.perf_counter() - asked)
    print(json.dumps(summary(took, time.perf_counter() - began)))


if __name__ == "__main__":
    main()
