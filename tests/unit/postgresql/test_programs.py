"""Which pg_dump is taken, and how it is told to log in."""

import os
import stat
from pathlib import Path
from urllib.parse import quote

import pytest

from engines.address import parse_address
from engines.errors import Precondition
from engines.postgresql.programs import (
    NoPrograms,
    find_programs,
    logging_in,
    parse_version,
    service_file,
    usual_folders,
)

HARD = "p a's%s\"w:o\\rd\n"


def install(place: Path, version: str, *names: str) -> Path:
    place.mkdir(parents=True)
    for name in names or ("pg_dump", "pg_restore"):
        (place / name).write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {version}'\n")
        (place / name).chmod(0o700)
    return place


async def test_the_servers_own_version_is_taken_else_the_nearest_later_one(tmp_path: Path) -> None:
    folders = [install(tmp_path / version, version) for version in ("18.6", "15.18", "17.2", "9.6.24")]
    for wanted, found in ((15, (15, 18)), (16, (17, 2)), (18, (18, 6)), (9, (9, 6, 24)), (10, (15, 18))):
        programs = await find_programs(wanted, folders)
        assert programs.version == found
        assert programs.pg_restore.parent == programs.pg_dump.parent == programs.folder
    assert str(await find_programs(15, folders)) == "pg_dump 15.18"


async def test_programs_that_are_too_old_are_named_with_the_package_to_install(tmp_path: Path) -> None:
    with pytest.raises(
        NoPrograms, match=r"pg_dump 15\.18 is older than what is needed here, 18\. .*postgresql-client-18"
    ):
        await find_programs(18, [install(tmp_path / "a", "15.18")])


async def test_without_programs_the_package_is_named(tmp_path: Path) -> None:
    with pytest.raises(NoPrograms, match=r"There is no pg_dump .*postgresql-client-16"):
        await find_programs(16, [tmp_path, tmp_path / "absent"])


async def test_a_pg_dump_without_its_pg_restore_or_that_does_not_run_is_passed_by(tmp_path: Path) -> None:
    alone = install(tmp_path / "alone", "18.1", "pg_dump")
    broken = install(tmp_path / "broken", "18.2")
    (broken / "pg_dump").write_text("#!/bin/sh\nexit 127\n")
    good = install(tmp_path / "good", "18.3")
    assert (await find_programs(18, [alone, broken, good])).version == (18, 3)


async def test_the_script_that_debian_puts_on_path_is_passed_by(tmp_path: Path) -> None:
    wrapper = install(tmp_path / "wrapper", "18.9", "pg_wrapper")
    for name in ("pg_dump", "pg_restore"):
        (wrapper / name).symlink_to(wrapper / "pg_wrapper")
    with pytest.raises(NoPrograms):
        await find_programs(18, [wrapper])


def test_programs_are_looked_for_on_path_and_where_packages_put_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    debian, red_hat = tmp_path / "usr/lib/postgresql/16/bin", tmp_path / "usr/pgsql-17/bin"
    debian.mkdir(parents=True)
    red_hat.mkdir(parents=True)
    monkeypatch.setenv("PATH", f"/one{os.pathsep}/two")
    assert usual_folders(tmp_path) == [Path("/one"), Path("/two"), debian, red_hat]


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", (15, 18)),
        ("pg_dump (PostgreSQL) 19devel", (19,)),
        ("pg_dump 18.6", (18, 6)),
        ("9.6.24", (9, 6, 24)),
        ("", ()),
    ],
)
def test_versions_are_read(text: str, version: tuple[int, ...]) -> None:
    assert parse_version(text) == version


def test_a_program_logs_in_as_dbvalet_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGSSLROOTCERT", "/ca.crt")
    monkeypatch.setenv("PGPASSWORD", "of somebody else")
    monkeypatch.setenv("PGDATABASE", "another")
    monkeypatch.setenv("SECRET", "not for it")
    url = "postgresql://val%20et:p%20a's%25s%22w%3Ao%5Crd%0A@db.example:5433/my%20app?sslmode=verify-full&options=-c%20geqo%3Doff"
    with logging_in(parse_address(url, 5432)) as environment:
        service = Path(environment["PGSERVICEFILE"])
        assert stat.S_IMODE(service.stat().st_mode) == 0o600
        assert stat.S_IMODE(service.parent.stat().st_mode) == 0o700
        lines = service.read_text().splitlines()
    assert not service.parent.exists()
    assert lines[0] == "[dbvalet]"
    assert "sslmode=verify-full" in lines
    assert "connect_timeout=3" in lines
    assert not any(line.startswith(("password", "options", "application_name", "host=")) for line in lines)
    assert {name: environment[name] for name in ("PGHOST", "PGPORT", "PGUSER", "PGPASSWORD", "PGDATABASE")} == {
        "PGHOST": "db.example",
        "PGPORT": "5433",
        "PGUSER": "val et",
        "PGPASSWORD": HARD,
        "PGDATABASE": "my app",
    }
    assert environment["PGSERVICE"] == "dbvalet"
    assert environment["PGAPPNAME"] == "dbvalet backup"
    assert environment["PGOPTIONS"].startswith("-c geqo=off -c statement_timeout=0")
    assert environment["PGSSLROOTCERT"] == "/ca.crt"
    assert "SECRET" not in environment


@pytest.mark.parametrize("password", ["p/a:s\\s#1", "'\" %", "é😀", ":", "x" * 64])
def test_a_password_stands_in_a_private_file_and_in_no_variable(password: str) -> None:
    with logging_in(
        parse_address(f"postgresql://valet:{quote(password, safe='')}@db.example/app", 5432)
    ) as environment:
        assert not any(
            password in value for name, value in environment.items() if name != "PGPASSFILE" and len(password) > 1
        )
        assert "PGPASSWORD" not in environment
        file = Path(environment["PGPASSFILE"])
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert file.read_text() == "*:*:*:*:" + password.replace("\\", "\\\\").replace(":", "\\:") + "\n"
    assert not file.exists()


@pytest.mark.parametrize("value", [" in front", "behind ", "two\nlines", "two\rlines"])
def test_an_option_that_cannot_be_written_is_refused(value: str) -> None:
    with pytest.raises(Precondition, match="sslpassword"):
        service_file({"sslpassword": value})
