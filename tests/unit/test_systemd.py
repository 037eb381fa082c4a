"""deploy/systemd: what `dbvalet` of root runs has the account, the state and the secrets of the service."""

import configparser
import os
import subprocess
from pathlib import Path

import pytest
import yaml

FOLDER = Path(__file__).parents[2] / "deploy" / "systemd"
PROGRAM, CONFIG = "/opt/dbvalet/bin/dbvalet", "/etc/dbvalet/dbvalet.yaml"
IDENTITY = ("DynamicUser", "LoadCredential", "StateDirectory", "StateDirectoryMode", "UMask")


def service() -> dict[str, str]:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # pyright: ignore[reportAttributeAccessIssue] - as in its documentation
    unit.read(FOLDER / "dbvalet.service")
    return dict(unit["Service"])


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """Stand-ins for systemd-run and the installed program that say how they were called."""
    for name in ("systemd-run", "dbvalet"):
        (tmp_path / name).write_text(f'#!/bin/sh\nprintf "%s\\n" {name} "$@"\n')
        (tmp_path / name).chmod(0o755)
    return tmp_path


def called(programs: Path, *words: str, **variables: str) -> list[str]:
    script = programs / "root"
    script.write_text((FOLDER / "dbvalet").read_text().replace(PROGRAM, str(programs / "dbvalet")))
    environment = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", **variables}
    ended = subprocess.run(["sh", str(script), *words], env=environment, capture_output=True, text=True, check=True)
    return [each.replace(str(programs / "dbvalet"), PROGRAM) for each in ended.stdout.splitlines()]


def test_it_is_the_account_the_state_and_the_secrets_of_the_service(programs: Path) -> None:
    unit = service()
    words = called(programs, "token", "list")
    assert words[0] == "systemd-run"
    properties = dict(
        each.removeprefix("--property=").split("=", 1) for each in words if each.startswith("--property=")
    )
    # The account of a service without `User` has the name of its unit.
    assert properties == {"User": "dbvalet", **{name: unit[name] for name in IDENTITY}}
    assert f"--setenv={unit['Environment']}" in words
    assert words[words.index(PROGRAM) :] == [PROGRAM, "token", "list", "--config", CONFIG]
    assert unit["ExecStart"] == f"{PROGRAM} serve --config {CONFIG}"


def test_the_secrets_of_the_configuration_are_credentials_of_it() -> None:
    name, _, _ = service()["LoadCredential"].partition(":")
    settings = yaml.safe_load((FOLDER / "dbvalet.yaml").read_text())
    files = [
        *(each["token_file"] for each in settings["tokens"]),
        *(each["url_file"] for each in settings["databases"]),
    ]
    assert all(each.startswith(f"${{CREDENTIALS_DIRECTORY}}/{name}_") for each in files)


def test_a_configuration_that_is_named_is_taken(programs: Path) -> None:
    words = called(programs, "doctor", "--config", "/etc/other.yaml", "ad-pg")
    assert words[words.index(PROGRAM) :] == [PROGRAM, "doctor", "--config", "/etc/other.yaml", "ad-pg"]


def test_the_audit_says_who_it_was(programs: Path) -> None:
    assert "--setenv=LOGNAME=somebody" in called(programs, "token", "revoke", "ops", SUDO_USER="somebody")


@pytest.mark.parametrize("words", [(), ("actions",), ("call", "ad-pg"), ("audit", "verify", "--file", "audit.jsonl")])
def test_what_needs_nothing_of_the_service_is_run_as_it_is(programs: Path, words: tuple[str, ...]) -> None:
    assert called(programs, *words) == ["dbvalet", *words]
