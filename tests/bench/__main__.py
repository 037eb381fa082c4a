"""Measure, print one table and the ratios. Ratios of one run are what counts: machines are shared and noisy."""

from __future__ import annotations

import argparse
import statistics
from contextlib import ExitStack

import psycopg
from rich.console import Console
from rich.table import Table

from engines.postgresql.queries import LIST_QUERIES
from tests.bench.figures import resident_mib
from tests.bench.processes import Dbvalet, bare, pgbench, serving
from tests.live.images import newest
from tests.live.servers import LiveServer, spawn

READS = {
    "mysql": ("ad-my", "get-sqlmode"),
    "mongodb": ("ad-mg", "list-databases"),
    "influxdb": ("ad-inf", "list-retention-policies"),
}
PG = ("ad-pg", "pg-list-queries")

WRITE = ("ad-my", "set-sqlmode", "ANSI_QUOTES")

KINDS_OF_WRITE = {"plain": False, "keyed": True}
"""Whether each has a key."""

Figures = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--seconds", type=float, default=4, help="length of each measurement (default 4)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is taken; medians are shown (default 3)")
    parser.add_argument("--check", action="store_true", help="end with 1 when a figure to reach is not reached")
    options = parser.parse_args()
    console = Console()
    with ExitStack() as stack:
        console.print("Starting four engines …")
        servers = {
            name: stack.enter_context(spawn(name, newest(name).version))
            for name in ("postgresql", "mysql", "mongodb", "influxdb")
        }
        urls = {name: server.url() for name, server in servers.items()}
        idle_sessions(stack, servers["postgresql"])
        ids = {"ad-pg": "postgresql", "ad-my": "mysql", "ad-mg": "mongodb", "ad-inf": "influxdb"}
        databases = {database: urls[name] for database, name in ids.items()}
        starts = [start_seconds(databases) for _ in range(options.rounds)]
        dbvalet, started = stack.enter_context(serving(databases, PG))
        figures: Figures = {"start_s": statistics.median([*starts, started])}
        for read in (PG, *READS.values()):
            dbvalet.act(*read).raise_for_status()
        figures["idle_mib"] = resident_mib(dbvalet.process.pid)
        rounds = []
        for number in range(options.rounds):
            console.print(f"Round {number + 1} of {options.rounds} …")
            rounds.append(measure(dbvalet, urls, options.seconds))
        figures["loaded_mib"] = resident_mib(dbvalet.process.pid)
        figures |= {key: statistics.median(each[key] for each in rounds) for key in rounds[0]}
        figures["failed"] = sum(value for each in rounds for key, value in each.items() if key.endswith("failed"))
        figures["connections"] = max(each["connections"] for each in rounds)
        for kind, keyed in KINDS_OF_WRITE.items():
            commits = dbvalet.commits(*WRITE, keyed=keyed)
            if commits is not None:
                figures[f"{kind}_write_commits"] = commits
    console.print(rates(figures))
    table, reached = ratios(figures)
    console.print(table)
    if options.check and not reached:
        raise SystemExit(1)


def idle_sessions(stack: ExitStack, server: LiveServer) -> None:
    """Let the list hold a few rows, as on a server that is used."""
    for _ in range(4):
        stack.enter_context(psycopg.connect(server.url(), autocommit=True)).execute("SELECT 1")


def start_seconds(databases: dict[str, str]) -> float:
    with serving(databases, PG) as (_, seconds):
        return seconds


def measure(dbvalet: Dbvalet, urls: dict[str, str], seconds: float) -> Figures:
    """Take every measurement once, what is compared right after each other."""
    found: Figures = {}
    for clients, pgbench_clients in ((1, 1), (8, 8), (64, 32)):
        found[f"pgbench_{pgbench_clients}_rate"] = pgbench(urls["postgresql"], LIST_QUERIES, pgbench_clients, seconds)
        load = dbvalet.load(*PG, clients, seconds)
        found |= {f"postgresql_{clients}_{key}": value for key, value in load.items()}
        if clients == 1:
            found |= {f"psycopg_{key}": value for key, value in bare("postgresql", urls["postgresql"], seconds).items()}
        if clients == 64:
            found["connections"] = held_connections(urls["postgresql"])
    for engine, read in READS.items():
        found |= {f"{engine}_bare_{key}": value for key, value in bare(engine, urls[engine], seconds).items()}
        for clients in (1, 8):
            load = dbvalet.load(*read, clients, seconds)
            found |= {f"{engine}_{clients}_{key}": value for key, value in load.items()}
    found |= {f"bare_write_{key}": value for key, value in bare("mysql-write", urls["mysql"], seconds).items()}
    for kind, keyed in KINDS_OF_WRITE.items():
        writes = dbvalet.writes(*WRITE, keyed=keyed, seconds=seconds)
        found |= {f"{kind}_write_{key}": value for key, value in writes.items()}
    return found


def held_connections(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'dbvalet'").fetchone()
    return row[0] if row else 0


def rates(figures: Figures) -> Table:
    table = Table(title="Requests per second and latency (medians of the rounds)")
    for heading in ("read", "who", "clients"):
        table.add_column(heading)
    for heading in ("requests/s", "p50 ms", "p99 ms"):
        table.add_column(heading, justify="right")

    def row(read: str, who: str, clients: int, key: str) -> None:
        latency = [f"{figures[f'{key}_{p}']:.3f}" if f"{key}_{p}" in figures else "" for p in ("p50_ms", "p99_ms")]
        table.add_row(read, who, str(clients), f"{figures[f'{key}_rate']:,.0f}", *latency)

    row("pg-list-queries", "psycopg, kept connection", 1, "psycopg")
    for clients in (1, 8, 32):
        row("pg-list-queries", "pgbench -M prepared", clients, f"pgbench_{clients}")
    for clients in (1, 8, 64):
        row("pg-list-queries", "dbvalet", clients, f"postgresql_{clients}")
    for engine, (_, action) in READS.items():
        table.add_section()
        row(action, f"bare driver ({engine})", 1, f"{engine}_bare")
        for clients in (1, 8):
            row(action, "dbvalet", clients, f"{engine}_{clients}")
    table.add_section()
    row("set-sqlmode", "bare driver (SET PERSIST)", 1, "bare_write")
    row("set-sqlmode", "dbvalet", 1, "plain_write")
    row("set-sqlmode", "dbvalet, each with a key", 1, "keyed_write")
    return table


def ratios(f: Figures) -> tuple[Table, bool]:
    """Compare with the figures to reach: `(name, value, at least / at most, aim, the more the better)`."""
    wanted = [
        ("dbvalet ÷ pgbench, 1 client", f["postgresql_1_rate"] / f["pgbench_1_rate"], 0.30, 0.38, True),
        ("dbvalet ÷ pgbench, 8 clients", f["postgresql_8_rate"] / f["pgbench_8_rate"], 0.40, 0.55, True),
        ("dbvalet 64 ÷ pgbench 32 clients", f["postgresql_64_rate"] / f["pgbench_32_rate"], 0.70, 1.5, True),
        ("dbvalet p50 − psycopg p50, ms", f["postgresql_1_p50_ms"] - f["psycopg_p50_ms"], 0.40, 0.25, False),
        ("p99 ÷ p50, 8 clients", f["postgresql_8_p99_ms"] / f["postgresql_8_p50_ms"], 4, 2, False),
        ("connections held at 64 clients", f["connections"], 4, 2, False),
        ("failed requests", f["failed"], 0, 0, False),
        ("memory idle, MiB", f["idle_mib"], 95, 80, False),
        ("memory after the load, MiB", f["loaded_mib"], 110, 90, False),
        ("start to first answered action, s", f["start_s"], 0.8, 0.5, False),
        ("get-sqlmode p50 − PyMySQL p50, ms", f["mysql_1_p50_ms"] - f["mysql_bare_p50_ms"], 0.5, 0.3, False),
        ("list-databases p50 − pymongo p50, ms", f["mongodb_1_p50_ms"] - f["mongodb_bare_p50_ms"], None, None, False),
        (
            "list-retention-policies p50 − influxdb p50, ms",
            f["influxdb_1_p50_ms"] - f["influxdb_bare_p50_ms"],
            None,
            None,
            False,
        ),
        ("durable commits of a write", f.get("plain_write_commits"), 1, 1, False),
        ("durable commits of a write with a key", f.get("keyed_write_commits"), 1, 1, False),
        ("set-sqlmode p50 − PyMySQL p50, ms", f["plain_write_p50_ms"] - f["bare_write_p50_ms"], None, None, False),
        ("with a key, ms", f["keyed_write_p50_ms"] - f["bare_write_p50_ms"], None, None, False),
    ]
    table = Table(title="Figures to reach")
    table.add_column("figure")
    for heading in ("value", "to reach", "aim"):
        table.add_column(heading, justify="right")
    table.add_column("")
    reached = True
    for name, value, least, aim, more in wanted:
        if value is None:
            table.add_row(name, "", f"≤ {least:g}", f"≤ {aim:g}", "not counted: strace is missing or may not trace")
            continue
        if least is None or aim is None:
            table.add_row(name, f"{value:.3f}", "", "", "")
            continue
        holds, aimed = (value >= least, value >= aim) if more else (value <= least, value <= aim)
        reached &= holds
        sign = "≥" if more else "≤"
        verdict = "[green]aim[/]" if aimed else "[green]reached[/]" if holds else "[red]not reached[/]"
        table.add_row(name, f"{value:.3f}", f"{sign} {least:g}", f"{sign} {aim:g}", verdict)
    return table, reached


if __name__ == "__main__":
    main()
