"""Runs the command-line client, and with it the Go SDK."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import tempfile
from pathlib import Path

from tests.clients.outcome import ENGINES, Book, Outcome

NAME = "scalingo CLI"
SECONDS = 40
ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")

UNREADABLE = re.compile(r"panic:|invalid body|invalid status|invalid character|unmarshal|server error|goroutine", re.I)
"""What shows that the client did not understand an answer, or hides its text."""


class Commands:
    """The client with a configuration folder of its own."""

    def __init__(self, program: Path, book: Book, *, url: str, api_token: str, app: str, folder: Path) -> None:
        self._program = program.resolve()
        self._app = app
        self._book = book
        self._folder = folder
        # Where it keeps a log of its own, and complains of in each output if it cannot.
        (folder / ".config" / "scalingo").mkdir(parents=True)
        self._environment = {
            "PATH": os.defpath,
            "HOME": str(folder),
            "CONFIG_DIR": str(folder),
            "CACHE_DIR": str(folder),
            "AUTH_FILE": str(folder / "auth"),
            "REGIONS_CACHE_PATH": str(folder / "regions"),
            "SCALINGO_API_TOKEN": api_token,
            "SCALINGO_API_URL": url,
            "SCALINGO_AUTH_URL": url,
            "SCALINGO_DB_URL": url,
            "DISABLE_UPDATE_CHECKER": "true",
            "SCALINGO_PREVIEW_FEATURES": "true",  # without it the command `databases` shows its help
            "DISABLE_INTERACTIVE": "true",
            "NO_COLOR": "1",
        }

    def run(
        self, database: str, command: str, *args: str, shows: str = "", typed: str | None = None, addon: bool = True
    ) -> Outcome:
        """Run a command and write its outcome down. `shows` must be in its output; `typed` is what its user types."""
        argv = [str(self._program), "--app", self._app]
        if addon:
            argv += ["--addon", database]
        argv += [command, *args]
        code, said = self._say(argv, typed)
        last = " ".join(said.split())[-300:]
        if UNREADABLE.search(said) or (code == 0 and shows not in said):
            outcome = Outcome(False, broke=f"exit code {code}: {last}")
        elif code == 0:
            outcome = Outcome(True, said)
        else:
            outcome = Outcome(False, refusal=last)
        return self._book.write(NAME, command, database, outcome)

    def _say(self, argv: list[str], typed: str | None) -> tuple[int, str]:
        terminal = None
        source: int = subprocess.DEVNULL
        if typed is not None:
            # Passwords are read from a terminal only.
            terminal, source = pty.openpty()
            os.write(terminal, typed.encode())
        try:
            done = subprocess.run(
                argv,
                stdin=source,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=self._environment,
                cwd=self._folder,
                timeout=SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as waiting:
            said = (waiting.stdout or b"").decode(errors="replace")
            return 124, f"it waits for something: {ESCAPES.sub('', said)}"
        finally:
            if terminal is not None:
                os.close(terminal)
                os.close(source)
        return done.returncode, ESCAPES.sub("", done.stdout.decode(errors="replace"))


def every_command(cli: Commands, database: str) -> None:
    """Run every command about databases on one of them."""
    cli.run(database, "regions", addon=False)
    cli.run(database, "addons", shows=database, addon=False)
    cli.run(database, "addons-info", database, shows="Addon Provider", addon=False)
    cli.run(database, "addons-list", shows=ENGINES[database], addon=False)
    cli.run(database, "addons-plans", ENGINES[database], addon=False)
    cli.run(database, "addons-add", ENGINES[database], "self-hosted", addon=False)
    cli.run(database, "addons-config", "--maintenance-window-hour", "3", "--maintenance-window-day", "monday", database)
    cli.run(database, "databases", shows=database, addon=False)
    cli.run(database, "backups-config", "--schedule-at", "3 UTC")
    # `--unschedule` asks where the cursor is, which only a terminal emulator answers.
    cli.run(database, "database-pitr-recovery-window")
    cli.run(database, "database-pitr-restore", "2026-01-31T08:00:00Z", typed="y\n")
    made = cli.run(database, "backups-create")
    if made.works:
        cli.run(database, "backups", shows="done")
        with tempfile.NamedTemporaryFile() as target:
            cli.run(database, "backups-download", "--silent", "--output", target.name)
            if not Path(target.name).read_bytes().startswith(b"\x1f\x8b"):
                cli.run(database, "backups-download", shows="a gzip archive was expected")
    cli.run(database, "database-users-list", shows="USERNAME")
    created = cli.run(database, "database-users-create", "made_by_cli", shows="made_by_cli", typed="\n\n")
    if created.works:
        cli.run(database, "database-users-list", shows="made_by_cli")
    cli.run(database, "database-users-update-password", "made_by_cli", shows="made_by_cli", typed="\n\n")
    cli.run(database, "database-users-delete", "made_by_cli", typed="made_by_cli\n")
    cli.run(database, "database-enable-feature", "force-ssl")
    cli.run(database, "database-disable-feature", "force-ssl")
    cli.run(database, "database-maintenance-list")
    cli.run(database, "database-maintenance-info", "0" * 24)
    cli.run(database, "logs")
    cli.run(database, "logs-archives")
    console = {"postgresql": "pgsql-console", "mysql": "mysql-console", "mongodb": "mongo-console"}
    cli.run(database, console.get(ENGINES[database], "influxdb-console"), addon=False)
    cli.run(database, "env", addon=False)
