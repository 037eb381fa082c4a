"""A logical database that holds one of everything, and all that there is in one."""

import datetime
import time
from typing import Any

import influxdb as bare
import msgpack
import requests

from engines.influxdb.influxql import identifier
from tests.live.servers import LiveServer

NOW = 1_700_000_000_000_000_000
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
DAY = 86_400_000_000_000

LINES = [
    # Each type, whole floats, the limits, and a nanosecond more.
    f'types integer=5i,float=5,other=5.25,text="x",yes=true,no=false {NOW}',
    f"types integer=9223372036854775807i,float=0.1,other=1e300 {NOW + 1}",
    f"types integer=-9223372036854775808i,float=1.7976931348623157e308,other=-0 {NOW + 2}",
    f"types float=5e-324,other=0.30000000000000004 {NOW + 3}",
    f"types float=100000000000000000000,other=123456789.123456789 {NOW + 4}",
    # Names and tags that have to be escaped.
    f'odd\\ name\\,x=y,tag\\ key\\,\\=="\\ \\,\\=\\ end field\\ \\,\\=\\"=1 {NOW}',
    f"odd\\ name\\,x=y,ü=中\\ \U0001f600,back\\slash=a\\b\\c field=2i {NOW}",
    f"quoted\",t='it\"s' f=1 {NOW}",
    f"same,same=tag same=1i,time2=3 {NOW}",
    f"lines,t=a\\\nb f=1 {NOW}",
    # Strings: what is escaped in them, line feeds, nothing, and what looks like a comment or a point.
    f'text s="a \\"quoted\\" \\\\ back\\\\\\\\slash, = \t ü 中 \U0001f600" {NOW}',
    f'text s="first\n# 5 bytes, 1 points\nm f=1 5\n\n# end: 0 points\n" {NOW + 1}',
    f'text s="" {NOW + 2}',
    f'text s="{"x" * 60_000}" {NOW + 3}',
    # A field of another type in each of three shards.
    f"mixed,t=x value=1i {NOW}",
    f"mixed,t=x value=1.5 {NOW + 30 * DAY}",
    f'mixed,t=x value="text" {NOW + 60 * DAY}',
    f"mixed,t=y value=true {NOW + 90 * DAY}",
    # Before and after what a date of Python is used for.
    "ends f=1 -9223372036854775806",
    "ends f=2 9223372036854775806",
    "ends f=3 0",
    *(
        f"many,host=h{number % 7},region=r{number % 3} value={number}i,load={number / 7} {NOW + number}"
        for number in range(3000)
    ),
    *(f"wide f{number}={number} {NOW}" for number in range(300)),
]


def query(root: bare.InfluxDBClient, statement: str, database: str | None = None) -> list[dict[str, Any]]:
    return [*root.query(statement, method="POST", database=database).get_points()]


def write(server: LiveServer, database: str, policy: str, lines: list[str]) -> None:
    for line in ["\n".join(lines)]:
        answer = requests.post(
            f"http://{server.host}:{server.port}/write",
            params={"db": database, "rp": policy, "precision": "ns"},
            data=line.encode(),
            auth=(server.admin, server.password),
            timeout=30,
        )
        assert answer.status_code == 204, answer.text


def fill(server: LiveServer, root: bare.InfluxDBClient, database: str) -> None:
    """Make one of everything."""
    name = identifier(database)
    write(server, database, "autogen", LINES)
    for settings in (
        "\"30 'days'\" ON {} DURATION 720h REPLICATION 1 SHARD DURATION 12h",
        '"ü" ON {} DURATION INF REPLICATION 1 SHARD DURATION 1h DEFAULT',
        '"empty" ON {} DURATION 1h REPLICATION 1',
    ):
        query(root, f"CREATE RETENTION POLICY {settings.format(name)}")
    now = time.time_ns()
    write(
        server,
        database,
        "30 'days'",
        [f"types,in=recent integer=1.5 {now - number * 3_600_000_000_000}" for number in range(40)],
    )
    write(server, database, "ü", [f"many value={number}i {NOW + number * DAY}" for number in range(20)])
    query(
        root,
        f'CREATE CONTINUOUS QUERY "every \\"hour\\"" ON {name} RESAMPLE EVERY 2h FOR 4h BEGIN SELECT mean("float"), '
        f'max("other") AS "most" INTO {name}."ü"."means" FROM {name}."autogen"."types" WHERE "t" =~ /a\\/b/ '
        "GROUP BY time(1h), * fill(previous) END",
    )
    query(root, f"CREATE CONTINUOUS QUERY b ON {name} BEGIN SELECT count(*) INTO c FROM many GROUP BY time(1h) END")
    query(root, f'CREATE SUBSCRIPTION "s" ON {name}."autogen" DESTINATIONS ALL \'udp://127.0.0.1:9\'')


def spoil(server: LiveServer, root: bare.InfluxDBClient, database: str) -> None:
    """Change, drop and add, so that nothing is as it was."""
    name = identifier(database)
    query(root, 'DROP MEASUREMENT "types"', database=database)
    query(root, 'DROP SERIES FROM "many" WHERE "host" = \'h1\'', database=database)
    write(server, database, "autogen", [f'mixed,t=new value="now a string" {NOW + 300 * DAY}', f"new f=1 {NOW}"])
    query(root, f'DROP RETENTION POLICY "ü" ON {name}')
    query(root, f'CREATE RETENTION POLICY "new" ON {name} DURATION INF REPLICATION 1 DEFAULT')
    write(server, database, "new", [f"new f=1 {NOW}"])
    query(root, f"ALTER RETENTION POLICY \"30 'days'\" ON {name} DURATION 400d SHARD DURATION 7d")
    query(root, f'ALTER RETENTION POLICY "autogen" ON {name} SHARD DURATION 1d')
    query(root, f"DROP CONTINUOUS QUERY b ON {name}")
    query(root, f"CREATE CONTINUOUS QUERY n ON {name} BEGIN SELECT count(*) INTO d FROM many GROUP BY time(1h) END")


def contents(server: LiveServer, root: bare.InfluxDBClient, database: str) -> dict[str, Any]:
    """Give everything; each value of a point as a line of its own, with its type."""
    if database not in {row["name"] for row in query(root, "SHOW DATABASES")}:
        return {}
    queries = root.query("SHOW CONTINUOUS QUERIES").raw["series"]
    found: dict[str, Any] = {
        "policies": sorted(map(str, query(root, f"SHOW RETENTION POLICIES ON {identifier(database)}"))),
        "continuous queries": next(
            sorted(map(str, each.get("values", []))) for each in queries if each["name"] == database
        ),
    }
    for policy in query(root, f"SHOW RETENTION POLICIES ON {identifier(database)}"):
        found[f"points of {policy['name']}"] = points(server, root, database, policy["name"])
        keys = root.query(f"SHOW FIELD KEYS ON {identifier(database)} FROM {identifier(policy['name'])}./.*/")
        found[f"types of {policy['name']}"] = sorted(map(str, keys.raw.get("series", [])))
    return found


def points(server: LiveServer, root: bare.InfluxDBClient, database: str, policy: str) -> list[str]:
    """Give each value of each point with its type, shard by shard, as a field may have another type in each."""
    found: list[str] = []
    shards = root.query("SHOW SHARDS").raw["series"]
    rows = next((each.get("values", []) for each in shards if each["name"] == database), [])
    for _, _, of, _, start, end, *_ in rows:
        if of != policy:
            continue
        source = f"{identifier(database)}.{identifier(policy)}./.*/"
        first, last = max(in_nanoseconds(start), -(2**63) + 2), min(in_nanoseconds(end), 2**63 - 1)
        answer = requests.post(
            f"http://{server.host}:{server.port}/query",
            params={"epoch": "ns"},
            data={"q": f"SELECT * FROM {source} WHERE time >= {first} AND time < {last} GROUP BY *"},
            headers={"Accept": "application/x-msgpack"},
            auth=(server.admin, server.password),
            timeout=60,
        )
        (result,) = msgpack.unpackb(answer.content)["results"]
        for series in result.get("series", []):
            head = (series["name"], sorted(tag for tag in series.get("tags", {}).items() if tag[1]))
            for at, *values in series["values"]:
                for column, value in zip(series["columns"][1:], values, strict=True):
                    if value is not None:
                        found.append(repr((*head, at, column, type(value).__name__, value)))
    return sorted(found)


def in_nanoseconds(text: str) -> int:
    return (datetime.datetime.fromisoformat(text) - EPOCH) // datetime.timedelta(seconds=1) * 1_000_000_000


def subscriptions(root: bare.InfluxDBClient) -> list[dict[str, Any]]:
    return query(root, "SHOW SUBSCRIPTIONS")
