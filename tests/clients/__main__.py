"""Run the official clients, built outside of this repository, and write docs/compatibility.md."""

from __future__ import annotations

import argparse
import os
import tempfile
from contextlib import ExitStack, closing
from pathlib import Path

from agent.demo.postgresql import wheel_programs
from tests.bench.processes import ROOT, serving
from tests.clients.commands import Commands, every_command
from tests.clients.javascript import JavaScript, every_method
from tests.clients.outcome import ENGINES, Book
from tests.clients.table import page
from tests.live.images import newest
from tests.live.mysql.backup.programs import take_programs
from tests.live.servers import spawn

APP = "app"
PAGE = ROOT / "docs" / "compatibility.md"


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/clients", description=__doc__)
    parser.add_argument("--cli", type=Path, required=True, help="the program of the command-line client")
    parser.add_argument("--js", type=Path, required=True, help="dist/scalingo.js of the JavaScript client")
    options = parser.parse_args()
    book = Book()
    with ExitStack() as stack:
        servers = {name: stack.enter_context(spawn(name, newest(name).version)) for name in ENGINES.values()}
        programs = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        take_programs(servers["mysql"], programs)
        os.environ["PATH"] = os.pathsep.join([str(programs), str(wheel_programs()), os.environ["PATH"]])
        urls = {database: servers[name].url() for database, name in ENGINES.items()}
        dbvalet, _ = stack.enter_context(serving(urls, ("ad-pg", "pg-list-queries")))
        url = f"http://127.0.0.1:{dbvalet.port}"
        js = stack.enter_context(closing(JavaScript(options.js, url, dbvalet.token, book)))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        cli = Commands(options.cli, book, url=url, api_token=dbvalet.token, app=APP, folder=folder)
        for database in ENGINES:
            every_method(js, APP, database)
            every_command(cli, database)
    PAGE.write_text(page(book, [f"{name} {newest(name).version}" for name in ENGINES.values()]))
    broken = book.broken()
    print(f"{sum(map(len, book.outcomes.values()))} calls, {len(broken)} broken; {PAGE.relative_to(ROOT)} is written")
    for line in broken:
        print(f"  {line}")
    if broken:
        raise SystemExit(1)


main()
