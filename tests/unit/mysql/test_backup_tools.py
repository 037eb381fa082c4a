"""Which programs fit a server, and how they log in."""

import errno
import os
import ssl
from pathlib import Path
from types import SimpleNamespace

import pytest

from engines.address import parse_address
from engines.mysql.facts import Flavour
from engines.mysql.tools import check_space, identify, option_file, quoted_option, series


@pytest.mark.parametrize(
    ("said", "flavour", "version"),
    [
        ("mysqldump  Ver 9.7.4-2 for Linux on x86_64 ((Debian))", "mysql", (9, 7, 4)),
        ("mysqldump  Ver 8.0.40 for Linux on x86_64 (MySQL Community Server - GPL)", "mysql", (8, 0, 40)),
        ("mysqldump  Ver 10.13 Distrib 5.7.44, for Linux (x86_64)", "mysql", (5, 7, 44)),
        ("mysql  Ver 14.14 Distrib 5.7.44, for Linux (x86_64) using  EditLine wrapper", "mysql", (5, 7, 44)),
        ("mariadb-dump  Ver 10.19 Distrib 10.5.23-MariaDB, for debian-linux-gnu (x86_64)", "mariadb", (10, 5, 23)),
        ("/lib/mariadb  Ver 15.1 Distrib 10.11.18-MariaDB, for debian-linux-gnu", "mariadb", (10, 11, 18)),
        ("mariadb-dump from 11.8.9-MariaDB, client 10.20 for debian-linux-gnu (x86_64)", "mariadb", (11, 8, 9)),
        ("what is this?", "mysql", ()),
    ],
)
def test_a_program_says_what_it_is(said: str, flavour: Flavour, version: tuple[int, ...]) -> None:
    assert identify(said) == (flavour, version)


def test_the_series_of_a_version_decides() -> None:
    assert series((10, 11, 18)) == "10.11"


def options(url: str, flavour: Flavour, *, encrypted: bool = False) -> dict[str, str]:
    lines = option_file(parse_address(url, 3306), flavour, encrypted=encrypted).splitlines()
    assert lines[0] == "[client]"
    return {name: value.strip('"') for name, _, value in (line.partition("=") for line in lines[1:])}


def test_values_stay_inside_their_quotes() -> None:
    assert quoted_option('a"b\\c\nd#e;f\r\tg') == '"a\\"b\\\\c\\nd#e;f\\r\\tg"'


def test_the_account_is_in_the_file() -> None:
    written = options("mysql://valet:p%23w@10.0.0.1:3307/app", "mysql")
    assert {
        "host": "10.0.0.1",
        "port": "3307",
        "user": "valet",
        "password": "p#w",
        "protocol": "tcp",
    }.items() <= written.items()


@pytest.mark.parametrize(
    ("query", "mode", "verifies"),
    [
        ("", "PREFERRED", None),
        ("?ssl-mode=DISABLED", "DISABLED", None),
        ("?ssl-mode=REQUIRED", "REQUIRED", "0"),
        ("?ssl-mode=VERIFY_CA", "VERIFY_CA", "0"),
        ("?ssl-mode=VERIFY_IDENTITY", "VERIFY_IDENTITY", "1"),
    ],
)
def test_tls_is_what_the_url_asks_for(
    monkeypatch: pytest.MonkeyPatch, query: str, mode: str, verifies: str | None
) -> None:
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: SimpleNamespace(cafile="/of/the/system.pem"))
    url = f"mysql://valet:x@h/app{query}"
    assert options(url, "mysql")["ssl-mode"] == mode
    of_mariadb = options(url, "mariadb")
    assert of_mariadb["ssl"] == ("1" if verifies else "0")
    assert of_mariadb.get("ssl-verify-server-cert") == verifies
    assert of_mariadb.get("ssl-ca") == ("/of/the/system.pem" if "VERIFY" in mode else None)


def test_mariadb_s_programs_do_as_dbvalet_s_own_connection_where_tls_is_preferred() -> None:
    assert options("mysql://valet:x@h/app", "mariadb", encrypted=True)["ssl"] == "1"
    assert options("mysql://valet:x@h/app?ssl-mode=DISABLED", "mariadb", encrypted=True)["ssl"] == "0"


def test_the_files_of_tls_are_named() -> None:
    for flavour in ("mysql", "mariadb"):
        written = options("mysql://valet:x@h/app?ssl_ca=/c%22a.pem&ssl_cert=/c.pem&ssl_key=/k.pem", flavour)
        assert (written["ssl-ca"], written["ssl-cert"], written["ssl-key"]) == ('/c\\"a.pem', "/c.pem", "/k.pem")


def test_a_disk_that_is_full_only_when_it_is_written_through_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        # As NFS and quotas have it: a write is taken, and its blocks are looked for later.
        raise OSError(errno.ENOSPC, "No space left on device")

    check_space(tmp_path / "dump")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        check_space(tmp_path / "dump")
