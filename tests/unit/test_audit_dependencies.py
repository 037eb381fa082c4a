"""scripts/audit: a known weakness fails it, an accepted one does not until its day, no network never does."""

import importlib.util
import json
import subprocess
import sys
from datetime import date
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
TODAY = date(2027, 1, 15)
CLEAN = {"name": "httpx", "version": "1.0", "vulns": []}
WEAK = {
    "name": "leaky",
    "version": "1.0",
    "vulns": [{"id": "PYSEC-2027-1", "aliases": ["CVE-2027-1"], "fix_versions": ["1.1"]}],
}
UNKNOWN = {"name": "odd", "skip_reason": "not found"}
ENTRY = '[[accepted]]\nid = "CVE-2027-1"\npackage = "leaky"\nreason = "Not called."\nuntil = {}\n'


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit_dependencies", ROOT / "scripts" / "audit_dependencies.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look their annotations up
    spec.loader.exec_module(module)
    return module


def report(*packages: dict[str, Any]) -> dict[str, Any]:
    return {"dependencies": list(packages), "fixes": []}


def test_a_known_weakness_fails_it_and_is_named_with_what_corrects_it(audit: ModuleType) -> None:
    lines, failed = audit.judged(report(CLEAN, WEAK), [], TODAY)
    assert failed
    assert lines[0] == "KNOWN WEAKNESS leaky 1.0: PYSEC-2027-1, corrected in 1.1"


def test_without_one_it_says_how_many_were_looked_at(audit: ModuleType) -> None:
    assert audit.judged(report(CLEAN, CLEAN), [], TODAY) == (["audited: 2 packages"], False)


@pytest.mark.parametrize(("until", "fails"), [("2027-01-16", False), ("2027-01-15", True), ("2026-01-01", True)])
def test_an_accepted_one_holds_until_its_day(audit: ModuleType, until: str, fails: bool) -> None:
    lines, failed = audit.judged(report(CLEAN, WEAK), audit.read_accepted(ENTRY.format(until)), TODAY)
    assert failed is fails
    assert until in lines[0]


def test_an_accepted_one_is_of_its_package_alone_and_told_when_it_is_gone(audit: ModuleType) -> None:
    accepted = audit.read_accepted(ENTRY.format("2027-12-31"))
    _, failed = audit.judged(report(CLEAN, {**WEAK, "name": "other"}), accepted, TODAY)
    assert failed
    lines, failed = audit.judged(report(CLEAN), accepted, TODAY)
    assert (lines[0], failed) == ("no longer needed in requirements/accepted.toml: CVE-2027-1", False)


@pytest.mark.parametrize(
    "entry", [ENTRY.format('"soon"'), ENTRY.format("2027-12-31").replace("Not called.", " "), "[["]
)
def test_an_accepted_one_without_reason_or_day_is_a_mistake(audit: ModuleType, entry: str) -> None:
    with pytest.raises(audit.Mistake, match=r"^requirements/accepted\.toml: "):
        audit.read_accepted(entry)


def test_the_file_of_accepted_ones_can_be_read(audit: ModuleType) -> None:
    audit.read_accepted(audit.ACCEPTED.read_text())


def test_packages_that_nobody_knows_are_not_taken_for_sound(audit: ModuleType) -> None:
    # pip-audit itself ends with 0 and "No known vulnerabilities found" here.
    lines, failed = audit.judged(report(UNKNOWN, UNKNOWN), [], TODAY)
    assert (lines, failed) == (["not audited: what answers here knows none of 2 packages"], False)
    lines, _ = audit.judged(report(UNKNOWN, CLEAN), [], TODAY)
    assert lines == ["not audited, as they are not known there: odd", "audited: 1 packages"]


def stand_in(audit: ModuleType, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.setattr(audit, "COMMAND", [sys.executable, "-c", code])


@pytest.mark.parametrize(("arguments", "status"), [([], 0), (["--strict"], 1)])
def test_without_a_network_it_says_so_in_one_line(
    audit: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    status: int,
) -> None:
    stand_in(audit, monkeypatch, "import urllib.error; raise ConnectionError('host=registry.example')")
    assert audit.main(arguments) == status
    assert capsys.readouterr().out == "not audited: no list of weaknesses can be reached here (ConnectionError)\n"


def test_a_weakness_ends_it_with_1_and_wrong_arguments_with_2(
    audit: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in(audit, monkeypatch, f"import sys; print({json.dumps(report(WEAK, CLEAN))!r}); sys.exit(1)")
    assert audit.main([]) == 1
    stand_in(audit, monkeypatch, "import argparse; argparse.ArgumentParser().error('unknown')")
    assert audit.main([]) == 2
    assert "unknown" in capsys.readouterr().err


def test_one_that_never_ends_is_given_up(
    audit: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(audit, "SECONDS", 0.3)
    stand_in(audit, monkeypatch, "import time; time.sleep(60)")
    assert audit.main([]) == 0
    assert "no answer within 0.3 s" in capsys.readouterr().out


def test_pip_audit_takes_the_arguments(audit: ModuleType) -> None:
    # --dry-run reads the locks and asks nobody.
    ended = subprocess.run([*audit.COMMAND, "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ended.returncode, "would have audited" in ended.stderr) == (0, True), ended.stderr
