"""Logs: the end of a file, whatever stands in it and is done to it; and that no password leaves with a line."""

import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agent.log_file import end_of_file
from agent.logs import LONGEST_LINE, in_format
from engines.errors import Precondition
from engines.log_text import MOST_BYTES, entries, masked, moment_of
from tests.fakes.service import PASSWORD, URL, Valet, running

NOW = datetime(2026, 1, 31, 9, 0, tzinfo=UTC)
SECRET = "planted-in-a-line"

STATEMENTS = [
    f"CREATE ROLE x LOGIN PASSWORD '{SECRET}' VALID UNTIL 'infinity'",
    f"alter role x encrypted password\n\tE'it\\'s {SECRET}'",
    f"ALTER ROLE x PASSWORD 'a\\'; ALTER ROLE y PASSWORD '{SECRET}'",
    f"ALTER ROLE x PASSWORD /* new */ $a${SECRET}$a$ SUPERUSER",
    f"ALTER ROLE x PASSWORD 'one'\n\t'{SECRET}'",
    f"ALTER ROLE x PASSWORD 'it''s {SECRET}' SUPERUSER",
    f"ALTER ROLE x PASSWORD '{SECRET} and the log ends here",
    f"CREATE USER x@'%' IDENTIFIED BY '{SECRET}'",
    f"CREATE USER x IDENTIFIED WITH 'mysql_native_password' BY \"{SECRET}\" AND IDENTIFIED BY '{SECRET}'",
    f"CREATE USER x IDENTIFIED VIA ed25519 USING PASSWORD('{SECRET}') OR unix_socket",
    f"ALTER USER x IDENTIFIED BY '{SECRET}' REPLACE '{SECRET}'",
    f"SET PASSWORD FOR 'x'@'%' = PASSWORD('{SECRET}')",
    f"SET PASSWORD = '{SECRET}'",
    f"CHANGE MASTER TO MASTER_HOST='x', MASTER_PASSWORD='{SECRET}'",
    f"CREATE SUBSCRIPTION s CONNECTION 'host=a password={SECRET} user=b' PUBLICATION p",
    f"CREATE SUBSCRIPTION s CONNECTION 'host=a password=''{SECRET} x{SECRET}'' user=b'",
    f'{{"command":{{"createUser":"x","pwd":"{SECRET}"}}}}',
    f"connecting to mongodb://u:{SECRET}@host/db",
    f"SET PASSWORD FOR x = '{SECRET}'",
    f"GET /query?u=root&p={SECRET}&q=SHOW+DATABASES",
    f"DO 'BEGIN ALTER ROLE x PASSWORD ''{SECRET}''; END'",
    f"DO 'ALTER ROLE x PASSWORD ''{SECRET}'''",
    f"DO 'ALTER ROLE x PASSWORD ''it''''s {SECRET}'' SUPERUSER'",
    f"DO 'ALTER ROLE x PASSWORD ''''''{SECRET}'' SUPERUSER'",
    f"DO 'ALTER ROLE x PASSWORD '' {SECRET}'' SUPERUSER'",
    f"DO 'ALTER ROLE x PASSWORD ''{SECRET} and it is cut here",
    f"DO 'BEGIN EXECUTE ''ALTER ROLE x PASSWORD ''''{SECRET}''''''; END'",
    f"DO 'DO ''DO ''''ALTER ROLE x PASSWORD ''''''''{SECRET}'''''''' '''' '' '",
    f"DO 'ALTER ROLE x PASSWORD ''a''\n ''{SECRET}'''",
    f"PREPARE s FROM 'CREATE USER x IDENTIFIED BY \\'{SECRET}\\''",
    f'PREPARE s FROM "CREATE USER x IDENTIFIED BY ""{SECRET}"" ACCOUNT LOCK"',
    f"SELECT set_config('my.password', '{SECRET}', true)",
    f"UPDATE users SET password = crypt('{SECRET}', gen_salt('bf'))",
    f"a text with SCRAM-SHA-256$4096:{SECRET}$a:b",
    f'a string of JSON in JSON: \\"pwd\\":\\"{SECRET}\\"',
]

STAMPS: dict[str, tuple[str, str]] = {
    "postgresql": ("2026-01-31 08:00:00.120 UTC [7] LOG:  ready", "[7] LOG:  ready"),
    "postgresql with an offset": ("2026-01-31 09:00:00.120 +01 [7] LOG:  ready", "[7] LOG:  ready"),
    "mysql": ("2026-01-31T08:00:00.120000Z 0 [Note] ready", "0 [Note] ready"),
    "mongodb 4.2": ("2026-01-31T08:00:00.120+0000 I  CONTROL ready", "I  CONTROL ready"),
}


def file_of(folder: Path, content: bytes | str) -> Path:
    path = folder / "engine.log"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def line(number: int, text: str = "line") -> str:
    return f"2026-01-31 08:00:{number % 60:02d}.000 UTC [1] {text} {number}\n"


@pytest.mark.parametrize("statement", STATEMENTS)
def test_a_password_of_a_statement_is_masked(statement: str) -> None:
    assert SECRET not in masked(statement)
    assert "[secret]" in masked(statement)


def test_what_has_no_password_stays_as_it_is() -> None:
    for text in (
        'password authentication failed for user "x"',
        "SELECT 'a' AS b",
        "identified by nobody",
        "it's a token",
        "UPDATE users SET password = $1 WHERE id = $2",
        "SELECT md5('x'), 'SCRAM-SHA-256' AS password_encryption",
    ):
        assert masked(text) == text
    assert masked("CREATE ROLE x PASSWORD 'y' VALID UNTIL 'z'") == "CREATE ROLE x PASSWORD [secret] VALID UNTIL 'z'"


@pytest.mark.parametrize(
    "text",
    [
        "password " * 50_000,
        "SET PASSWORD FOR " * 30_000,
        "password = ' \\" * 50_000,
        "a://" * 100_000,
        "/*" * 200_000,
        "password '' " * 30_000,
        "password ''''x" * 30_000,
        "password \\'" * 30_000,
        "'" * 200_000,
    ],
)
def test_no_text_makes_it_slow(text: str) -> None:
    began = time.monotonic()
    masked(text + "password")
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("stamp", STAMPS)
def test_the_moment_of_a_line_is_read_as_each_engine_writes_it(stamp: str) -> None:
    written, rest = STAMPS[stamp]
    assert moment_of(written) == (datetime(2026, 1, 31, 8, 0, 0, 120_000, tzinfo=UTC), rest)


def test_the_moments_of_mariadb_mongodb_and_influxdb_are_read() -> None:
    eight = datetime(2026, 1, 31, 8, 0, tzinfo=UTC)
    for written in (
        "2026-01-31  8:00:00 0 [Note] ready",
        '{"t":{"$date":"2026-01-31T09:00:00.000+01:00"},"msg":"ready"}',
        'ts=2026-01-31T08:00:00.000000Z lvl=info msg="ready"',
        '[httpd] 127.0.0.1 - root [31/Jan/2026:08:00:00 +0000] "GET /ping HTTP/1.1" 204',
    ):
        assert moment_of(written)[0] == eight


def test_an_abbreviation_that_stands_for_several_zones_tells_nothing() -> None:
    assert moment_of("2026-01-31 08:00:00 CST [1] LOG:  ready")[0] is None


def test_lines_that_go_on_belong_to_the_one_before() -> None:
    content = "2026-01-31 08:00:00 UTC LOG:  statement: SELECT\n\t1\n2026-01-31 08:00:01 UTC LOG:  b\nunfinished"
    first, second = entries(content.encode(), cut=False, otherwise=NOW)
    assert (first.text, second.text) == ("LOG:  statement: SELECT\n\t1", "LOG:  b")


def test_what_docker_and_kubernetes_put_around_a_line_is_taken_off() -> None:
    wrapped = '{"log":"2026-01-31 08:00:00 UTC LOG:  a\\n","stream":"stderr","time":"2026-01-31T08:00:00.123456789Z"}\n'
    (found,) = entries(wrapped.encode(), cut=False, otherwise=NOW)
    assert found.text == "LOG:  a"
    (found,) = entries(b"2026-01-31T08:00:00.123456789Z stderr F plain\n", cut=False, otherwise=NOW)
    assert (found.text, found.at.microsecond) == ("plain", 123_456)


def test_only_the_end_of_a_file_is_read_and_the_cut_line_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = file_of(tmp_path, "".join(line(number) for number in range(100_000)))
    read: list[int] = []
    really = os.pread

    def counted(descriptor: int, size: int, at: int) -> bytes:
        read.append(size)
        return really(descriptor, size, at)

    monkeypatch.setattr("agent.log_file.os.pread", counted)
    found = end_of_file(path, 1_000_000)
    assert sum(read) == MOST_BYTES < path.stat().st_size
    assert found[-1].text == "[1] line 99999"
    assert all(each.text.startswith("[1] line ") for each in found)


def test_a_password_that_begins_before_what_is_read_is_not_shown(tmp_path: Path) -> None:
    long = "x" * (MOST_BYTES + 10)
    path = file_of(tmp_path, f"2026-01-31 08:00:00 UTC LOG:  ALTER ROLE x PASSWORD '{long}\n{SECRET}'\n{line(1)}")
    assert [each.text for each in end_of_file(path, 10_000)] == ["[1] line 1"]


def test_a_rotation_between_two_reads_loses_nothing(tmp_path: Path) -> None:
    path = file_of(tmp_path, line(1))
    assert [each.text for each in end_of_file(path, 10)] == ["[1] line 1"]
    path.rename(tmp_path / "engine.log.1")
    path.write_text(line(2))
    assert [each.text for each in end_of_file(path, 10)] == ["[1] line 1", "[1] line 2"]
    path.write_text("")  # as copytruncate does
    assert [each.text for each in end_of_file(path, 10)] == ["[1] line 1"]


def test_bytes_that_are_no_text_and_commands_to_a_terminal_are_made_safe(tmp_path: Path) -> None:
    path = file_of(tmp_path, b"2026-01-31 08:00:00 UTC a\xff\x00\x1b[31mred \xe2\x80\xaeback\r\n")
    (found,) = end_of_file(path, 10)
    shown = in_format(found.at, found.text, "fake")
    assert shown == "2026-01-31 08:00:00.000000000 +0000 UTC [fake] a\ufffd\ufffd\ufffd[31mred \ufffdback"


def test_a_line_that_is_too_long_is_cut_and_says_so() -> None:
    shown = in_format(NOW, "y" * 50_000, "fake")
    assert shown is not None
    assert len(shown) < LONGEST_LINE + 200
    assert shown.endswith("[cut: the line has 50000 characters]")


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "forbidden"])
def test_a_file_that_cannot_be_read_is_told_with_its_cause(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "engine.log"
    cause = "No such file or directory"
    if kind == "folder":
        path.mkdir()
        cause = "not an ordinary file"
    elif kind == "pipe":
        os.mkfifo(path)
        cause = "not an ordinary file"
    elif kind == "forbidden":
        if os.geteuid() == 0:
            pytest.skip("root may read everything")
        path.touch(0o000)
        cause = "Permission denied"
    with pytest.raises(Precondition, match=f"`log_file` of this database cannot be read: .*{cause}"):
        end_of_file(path, 10)


def with_file(path: Path) -> dict[str, Any]:
    return {"databases": [{"id": "ad-one", "url": URL, "log_file": str(path)}, {"id": "ad-two", "url": URL}]}


async def shown(valet: Valet, more: str = "") -> str:
    url = (await valet.ask("GET", "/api/databases/ad-one/logs")).json()["url"]
    answer = await valet.client.get(url + more)
    assert answer.status_code == 200
    return answer.text


async def test_the_file_is_shown_in_place_of_what_the_engine_gives_and_without_secrets(tmp_path: Path) -> None:
    statement = f"2026-01-31 08:00:00 UTC LOG:  CREATE ROLE x PASSWORD\n\t'{SECRET}'\n"
    path = file_of(tmp_path, statement + line(1, f"given {PASSWORD}") + line(2))
    async with running(**with_file(path)) as valet:
        text = await shown(valet, "&n=10")
        assert text.splitlines()[-1] == "2026-01-31 08:00:02.000000000 +0000 UTC [fake] [1] line 2"
        assert SECRET not in text
        assert PASSWORD not in text
        assert len((await shown(valet, "&n=1")).splitlines()) == 1
        # Nor does the filter tell what is behind the mask.
        assert await shown(valet, f"&filter={SECRET[:6]}") == ""
        assert valet.server().performed == []


async def test_a_missing_file_is_a_precondition_that_names_the_setting(tmp_path: Path) -> None:
    async with running(**with_file(tmp_path / "none.log")) as valet:
        refused = await valet.ask("GET", "/api/databases/ad-one/logs")
        assert (refused.status_code, refused.json()["code"]) == (409, "precondition")
        assert refused.json()["error"] == "`log_file` of this database cannot be read: No such file or directory."
