"""Make dbvalet's account, the stanza and the first backup: once, beside a PostgreSQL that is just being made.

It runs in dbvalet's image with pgbackrest in it, as the user of PostgreSQL, whose socket lets him in. Running it again
does no harm.
"""

import subprocess
import sys
import time
from pathlib import Path

import psycopg

from engines.address import parse_address
from engines.engine import GrantsFor, installed_engines

SOCKET = "/var/run/postgresql"
WAIT_SECONDS = 120
"""How long the server may take to make its files and start, the first time."""

URL_FILE = Path("/run/secrets/postgresql_url")
STANZA = ["pgbackrest", "--stanza=main"]


def connect(database: str) -> psycopg.Connection:
    """Wait until the server takes writes: while its files are made, another one runs for a moment."""
    ends_at = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            return psycopg.connect(host=SOCKET, user="postgres", dbname=database, connect_timeout=3)
        except psycopg.OperationalError as problem:
            if time.monotonic() > ends_at:
                sys.exit(f"PostgreSQL does not answer: {problem}")
            time.sleep(0.5)


def main() -> None:
    """Do it, in an order in which it can be done again."""
    url = parse_address(URL_FILE.read_text().strip(), 5432)
    wanted = GrantsFor(user=url.user, database=url.database, password=url.password)
    script = installed_engines()["postgresql"].grants(wanted)
    for wish in ("backups", "restores", "recovery"):
        script = script.replace(f"'dbvalet.{wish}', 'no'", f"'dbvalet.{wish}', 'yes'")
    with connect(url.database) as connection:
        connection.execute(script.encode())
    subprocess.run([*STANZA, "stanza-create"], check=True)
    if (
        '"label"'
        not in subprocess.run([*STANZA, "--output=json", "info"], check=True, capture_output=True, text=True).stdout
    ):
        subprocess.run([*STANZA, "--type=full", "backup"], check=True)
    print("ready: account, stanza and a first backup are there")


if __name__ == "__main__":
    main()
