"""Secrets that were planted turn up nowhere: not in answers, logs, metrics, the audit, the state, the command line's
texts or the processes of a dbvalet that works, that fails, and that cannot begin."""

from __future__ import annotations

import base64
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import psycopg
import pytest
from typer.testing import CliRunner

from agent.commands.root import app
from tests.live.four import IDS, TOKENS, Four, bearer, follow, four
from tests.live.servers import ADMIN_PASSWORD, LiveServer
from tests.unit.running import configuration, run, serving

pytestmark = [pytest.mark.newest_version]

CHOSEN = "planted-chosen-password-0123456789"
OF_APPLICATION = "planted-application-0123456789"
IN_QUERY = "planted-in-a-query-0123456789"
WRONG = "planted-wrong/pass:word@0123456789"
UNKNOWN_TOKEN = "planted-unknown-token-0123456789"

SECRETS = {
    *TOKENS.values(),
    *(each for password in (ADMIN_PASSWORD, WRONG, OF_APPLICATION) for each in (password, quote(password, safe=""))),
    *(CHOSEN, UNKNOWN_TOKEN),
}
ACTIONS = {
    "postgresql": ("pg-list-queries", "list-extensions", "pg-stat-statements-list"),
    "mysql": ("list-databases", "get-sqlmode"),
    "mongodb": ("list-databases",),
    "influxdb": ("list-retention-policies",),
}


def found_in(text: str | bytes, secrets: set[str]) -> set[str]:
    """Give the secrets in a text, be they written as they are, in JSON or in base64."""
    seen = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return {
        secret
        for secret in secrets
        for written in (secret, json.dumps(secret)[1:-1], base64.b64encode(secret.encode()).decode().rstrip("="))
        if written in seen
    }


@pytest.fixture
def lives(
    postgresql: LiveServer, mysql: LiveServer, mongodb: LiveServer, influxdb: LiveServer
) -> dict[str, LiveServer]:
    return {"postgresql": postgresql, "mysql": mysql, "mongodb": mongodb, "influxdb": influxdb}


@pytest.fixture
def of_four(lives: dict[str, LiveServer], tmp_path: Path) -> Iterator[Four]:
    def of_database(engine: str) -> dict[str, str]:
        return {"application_url": f"{engine}://application:{OF_APPLICATION}@db.example/app"}

    with four(lives, tmp_path, of_database=of_database, log_level="debug", with_programs=True) as made:
        yield made


class Asked:
    """Answers of a dbvalet, all of which are looked through."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client
        self.answers: list[tuple[str, httpx.Response]] = []

    def __call__(self, method: str, path: str, **more: Any) -> httpx.Response:
        answer = self._client.request(method, path, **more)
        self.answers.append((f"{method} {path}", answer))
        return answer

    def look_through(self, secrets: set[str]) -> None:
        for what, answer in self.answers:
            told = found_in(f"{answer.headers.raw!r} {answer.text}", secrets)
            assert not told, (what, told)

    def everything(self) -> None:
        """Ask every GET of the document, and what reads on each engine, for each database."""
        document = self("GET", "/openapi.json").json()
        for path, methods in document["paths"].items():
            if "get" in methods:
                for database in IDS.values():
                    self("GET", path.format_map(_Other(database_id=database, app=database, addon=database)))
        for engine, actions in ACTIONS.items():
            for action in actions:
                self("POST", f"/api/databases/{IDS[engine]}/action", json={"action_name": action})


class _Other(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return "none"


def hand_in(ask: Asked, engine: str) -> set[str]:
    """Hand in secrets where they belong and where they do not, and give those that the answers are to hold."""
    one = f"/api/databases/{IDS[engine]}"
    name = f"planted_{time.time_ns() % 10**9}"
    body = {"database_user": {"name": name, "password": CHOSEN, "password_confirmation": CHOSEN}}
    made = ask("POST", f"{one}/users", json=body)
    assert made.status_code in (201, 409), made.text  # 409: InfluxDB, MySQL without TLS …
    again = ask("POST", f"{one}/users", json=body)
    assert again.status_code >= 400
    ask("PATCH", f"{one}/users/{name}", json={"database_user": {"password": CHOSEN, "password_confirmation": "x"}})
    ask("PATCH", f"{one}/users/nobody_here", json=body)
    for wrong in ({"action_name": "list-databases", "params": {"password": CHOSEN}}, {"password": CHOSEN}, [CHOSEN]):
        ask("POST", f"{one}/action", json=wrong)
    ask("POST", f"{one}/users", content=f'{{"database_user":{{"password":"{CHOSEN}"'.encode())
    ask("GET", one, headers={"Authorization": f"Bearer {UNKNOWN_TOKEN}"})
    told = set[str]()
    if made.status_code == 201:
        told.add(ask("POST", f"{one}/users/{name}/reset_password").json()["password"])
        assert ask("DELETE", f"{one}/users/{name}").status_code == 204
    return told


def exchanged(of_four: Four) -> str:
    basic = base64.b64encode(f":{TOKENS['admin']}".encode()).decode()
    answer = httpx.post(
        f"{of_four.running.url}/v1/tokens/exchange", headers={"Authorization": f"Basic {basic}"}, trust_env=False
    )
    return answer.json()["token"]


def backed_up(ask: Asked, engine: str) -> tuple[str, str]:
    """Make a backup; give its id and a link to its archive."""
    one = f"/api/databases/{IDS[engine]}"
    backup = ask("POST", f"{one}/backups").json()["database_backup"]
    ends_at = time.monotonic() + 60
    while ask("GET", f"/api/backups/{backup['id']}").json()["database_backup"]["status"] != "done":
        assert time.monotonic() < ends_at
        time.sleep(0.05)
    link = ask("GET", f"{one}/backups/{backup['id']}/archive").json()["download_url"]
    ask("GET", link)
    return backup["id"], link


def test_a_dbvalet_that_works_tells_no_secret(of_four: Four, tmp_path: Path) -> None:
    with psycopg.connect(of_four.owner_url(), autocommit=True) as session, of_four.client() as client:
        ask = Asked(client)
        session.execute(f"SELECT '{IN_QUERY}'".encode())
        told = set[str]().union(*(hand_in(ask, engine) for engine in IDS))
        assert len(told) >= 2
        signatures = {backed_up(ask, engine)[1].rpartition("signature=")[2] for engine in ("postgresql", "mysql")}
        assert all(len(each) >= 32 for each in signatures)
        with_answers = [each for each in ask.answers if not found_in(each[1].text, told | signatures)]
        assert len(with_answers) < len(ask.answers)
        ask.answers = with_answers
        for engine in IDS:
            # Not looked through: the answer says the client's own words again.
            mistaken = client.delete(
                f"/api/databases/{IDS[engine]}/users/{TOKENS['operator']}", headers={"X-Request-Id": TOKENS["reader"]}
            )
            assert mistaken.status_code >= 400
        short_lived = exchanged(of_four)
        ask("GET", "/v1/users/self", headers={"Authorization": f"Bearer {short_lived}"})
        ask("GET", "/v1/users/self", headers={"Authorization": f"Bearer {short_lived}x"})
        for role in ("reader", "operator"):
            client.headers.update(bearer(role))
            ask.everything()
        # Whoever may write is told the account that is declared for applications: that is what it is for.
        of_operator = [each for each in ask.answers if OF_APPLICATION in each[1].text]
        assert {what for what, _ in of_operator} == {f"GET /v1/apps/{each}/variables" for each in IDS.values()}
        assert len(of_operator) == len(IDS)
        ask.answers = [each for each in ask.answers if each not in of_operator]
        client.headers.update(bearer("admin"))
        audit = ask("GET", "/api/audit?limit=1000").text
        assert "[secret]" in audit
        ask("GET", "/metrics")
        handed_out = {short_lived, *told, *signatures}
        ask.look_through(SECRETS | handed_out)
        log = b"".join(of_four.lines)
        assert b"user_created" in log
        assert b"backup_linked" in log
        assert not found_in(log, SECRETS | handed_out | {IN_QUERY})
        for file in tmp_path.glob("state.db*"):
            assert not found_in(file.read_bytes(), SECRETS | handed_out | {IN_QUERY}), file.name
        key = signing_key(tmp_path / "state.db")
        assert not found_in(log, {key})
        ask.look_through({key})
        for arguments in (("doctor",), ("audit", "verify"), ("audit", "export"), ("token", "list")):
            ended = run(*arguments, "--config", str(of_four.file), more=of_four.variables)
            assert not found_in(ended.stdout + ended.stderr, SECRETS | handed_out | {IN_QUERY, key}), arguments


def signing_key(state: Path) -> str:
    """Give what short-lived tokens are signed with: it stands in the state, and nowhere else."""
    with closing(sqlite3.connect(state)) as connection:
        rows = connection.execute("SELECT * FROM memory").fetchall()
    (keys,) = [row for row in rows if "signing" in str(row)]
    found = max((each for each in str(keys).replace('"', " ").replace("'", " ").split()), key=len)
    assert len(found) >= 32
    return found


@pytest.mark.long
@pytest.mark.parametrize("how", ["wrong", "nobody listens"])
def test_a_dbvalet_that_cannot_log_in_tells_no_secret(lives: dict[str, LiveServer], tmp_path: Path, how: str) -> None:
    urls = {engine: live.url(password=WRONG) for engine, live in lives.items()}
    if how != "wrong":
        urls = {engine: url.replace(f":{lives[engine].port}/", ":1/") for engine, url in urls.items()}
    databases = [{"id": IDS[engine], "url": url} for engine, url in urls.items()]
    file = configuration(tmp_path, *databases, log_level="debug")
    with serving(file) as running:
        lines: list[bytes] = []
        follow(running, lines)
        token = json.loads(file.read_text())["tokens"][0]["token"]
        with httpx.Client(
            base_url=running.url, headers={"Authorization": f"Bearer {token}"}, timeout=60, trust_env=False
        ) as client:
            ask = Asked(client)
            ask.everything()
            for engine in IDS:
                ask("GET", f"/api/databases/{IDS[engine]}/users")
                ask("POST", f"/api/databases/{IDS[engine]}/backups")
            assert {answer.status_code for _, answer in ask.answers} >= {200, 503}
            ask.look_through({*SECRETS, token})
        assert b"engine_down" in b"".join(lines)
        assert not found_in(b"".join(lines), {*SECRETS, token})
        call = ("call", IDS["postgresql"], "pg-list-queries", "--url", running.url)
        backups = ("backups", "create", IDS["mysql"], "--url", running.url)
        for arguments in (call, backups, ("doctor", "--config", str(file))):
            ended = run(*arguments, more={"DBVALET_TOKEN": token} if arguments[0] != "doctor" else {})
            assert ended.returncode != 0
            assert ended.stdout + ended.stderr
            assert not found_in(ended.stdout + ended.stderr, {*SECRETS, token}), arguments


LIKELY = "a port that is none"
BROKEN = {
    LIKELY: "postgresql://valet:{}@127.0.0.1:port/app",
    "a host that is none": "postgresql://valet:{}@[::1/app",
    "no database": "mysql://valet:{}@127.0.0.1:3306",
    "an unknown scheme": "oracle://valet:{}@127.0.0.1/app",
    "an unknown option": "mongodb://valet:{}@127.0.0.1/app?nothing=1",
    "a space": "influxdb://valet:{} @127.0.0.1/app",
    "an escape that is none": "mysql://valet:{}%zz@127.0.0.1/app",
}


@pytest.mark.parametrize(
    "url",
    [pytest.param(url, id=why, marks=pytest.mark.long if why != LIKELY else ()) for why, url in BROKEN.items()],
)
def test_what_ends_a_start_names_the_key_and_not_the_secret(tmp_path: Path, url: str) -> None:
    broken = url.format(quote(WRONG, safe=""))
    file = configuration(tmp_path, {"id": "ad-x", "url": broken})
    for arguments in (("serve", "--check"), ("doctor",), ("token", "list")):
        ended = run(*arguments, "--config", str(file))
        assert not found_in(ended.stdout + ended.stderr, SECRETS), arguments
        assert "Traceback" not in ended.stderr, arguments
    ended = run("serve", more={"DBVALET_DATABASE_URL": broken, "DBVALET_TOKEN": UNKNOWN_TOKEN, "DBVALET_LISTEN": "x"})
    assert ended.returncode != 0
    assert not found_in(ended.stdout + ended.stderr, SECRETS)


HELPS = (
    *((), ("serve",), ("call",), ("doctor",), ("grants",), ("actions",), ("healthcheck",), ("demo",)),
    *(("backups",), ("backups", "create"), ("token",), ("token", "create"), ("audit",), ("audit", "export")),
)


@pytest.mark.parametrize("arguments", HELPS, ids=" ".join)
def test_no_help_shows_what_stands_in_the_environment(arguments: tuple[str, ...]) -> None:
    variables = {"DBVALET_TOKEN": UNKNOWN_TOKEN, "DBVALET_DATABASE_URL": f"postgresql://a:{CHOSEN}@h/d"}
    ended = CliRunner().invoke(app, [*arguments, "--help"], env=variables)
    assert ended.exit_code == 0
    assert "Usage" in ended.output
    assert not found_in(ended.output, SECRETS)


@contextmanager
def watching(process_id: int, seen: dict[str, tuple[str, str]]) -> Iterator[None]:
    """Note down command line and environment of every process below one, as whoever looks at /proc sees them.

    But for what is still the process itself: between fork and exec a child shows what its parent shows.
    """
    ended = threading.Event()
    own = Path(f"/proc/{process_id}/cmdline").read_bytes()

    def look() -> None:
        while not ended.is_set():
            for child in below(process_id):
                try:
                    command = Path(f"/proc/{child}/cmdline").read_bytes()
                    variables = Path(f"/proc/{child}/environ").read_bytes().decode()
                except OSError:
                    continue  # it has ended
                if command != own:
                    shown = command.replace(b"\0", b" ").decode()
                    seen[f"{child} {shown}"] = shown, variables

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def below(process_id: int) -> list[int]:
    found: list[int] = []
    try:
        threads = list(Path(f"/proc/{process_id}/task").iterdir())
    except OSError:
        return found  # it has ended
    for thread in threads:
        try:
            children = [int(each) for each in (thread / "children").read_text().split()]
        except OSError:
            continue
        found += [*children, *(each for child in children for each in below(child))]
    return found


def fill_postgresql(of_four: Four) -> None:
    """Give the dump enough to be seen at work."""
    with psycopg.connect(of_four.owner_url(), autocommit=True) as session:
        session.execute(
            "CREATE TABLE large AS SELECT n, repeat(md5(n::text), 30) AS text FROM generate_series(1, 30000) AS n"
        )


FILLS: dict[str, Callable[[Four], object]] = {"postgresql": fill_postgresql, "mysql": lambda of_four: None}


@pytest.mark.parametrize("engine", FILLS)
def test_no_process_of_a_backup_or_a_restore_shows_a_secret(of_four: Four, engine: str) -> None:
    FILLS[engine](of_four)
    seen: dict[str, tuple[str, str]] = {}
    with of_four.client() as client, watching(of_four.running.process.pid, seen):
        ask = Asked(client)
        backup, _ = backed_up(ask, engine)
        one = f"/api/databases/{IDS[engine]}"
        restoration = ask("POST", f"{one}/backups/{backup}/restore").json()["id"]
        ends_at = time.monotonic() + 60
        while ask("GET", f"{one}/backup_restorations/{restoration}").json()["backup_restoration"]["status"] != "done":
            assert time.monotonic() < ends_at
            time.sleep(0.05)
    commands = " ".join(command for command, _ in seen.values())
    assert "dump" in commands
    for command, variables in seen.values():
        assert not found_in(f"{command} {variables}", SECRETS), command
        assert not any(url in variables for url in of_four.variables.values() if "://" in url), command
