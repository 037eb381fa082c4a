"""scripts/sbom: what is in the bills of materials, and that they are CycloneDX."""

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "requirements" / "run.lock").read_text()

STATUS = """\
Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.36-9
Description: GNU C Library
 .
 Status: not a field

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1.0
"""


@pytest.fixture(scope="module")
def sbom() -> ModuleType:
    spec = importlib.util.spec_from_file_location("write_sbom", ROOT / "scripts" / "write_sbom.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def by_name(bill: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in bill["components"]}


def test_the_bill_of_the_lock_has_every_package_with_its_hashes(
    sbom: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sbom.main([str(tmp_path / "new")]) == 0
    bill = json.loads((tmp_path / "new" / "dbvalet.cdx.json").read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert bill["metadata"]["component"]["name"] == "dbvalet"
    unconditional = dict(re.findall(r"^([\w.-]+)(?:\[\w+\])?==(\S+) \\$", LOCK, flags=re.MULTILINE))
    assert len(unconditional) > 40
    found = by_name(bill)
    assert {name: found[name]["version"] for name in unconditional} == unconditional
    assert found["httpx"]["purl"] == f"pkg:pypi/httpx@{found['httpx']['version']}"
    assert all(each["hashes"] for each in bill["components"])
    assert "colorama" not in found, "it is for Windows"
    assert f"{len(bill['components'])} packages" in capsys.readouterr().out


def test_every_check_writes_the_bill_and_looks_for_known_weaknesses() -> None:
    steps = re.findall(r"^step '[^']+' (scripts/\w+)", (ROOT / "scripts" / "check").read_text(), flags=re.MULTILINE)
    assert {"scripts/sbom", "scripts/audit"} <= set(steps)


def test_it_is_the_bill_of_the_python_that_the_image_has(sbom: ModuleType) -> None:
    assert sbom.python_of_image((ROOT / "Dockerfile").read_text()) == "3.13"
    via = "\\\n    # via dbvalet\n"
    two = f"one==1.0 ; python_full_version < '3.12' {via}one==2.0 ; python_full_version >= '3.12' {via}"
    for python, version in (("3.11", "1.0"), ("3.13", "2.0")):
        assert by_name(json.loads(sbom.as_json(sbom.of_lock(two, python))))["one"]["version"] == version
    with pytest.raises(sbom.NotWritten):
        sbom.python_of_image("FROM debian")


def test_it_says_what_needs_what(sbom: ModuleType) -> None:
    bill = json.loads(sbom.as_json(sbom.of_lock(LOCK, "3.13")))
    needs = {each["ref"]: each.get("dependsOn", []) for each in bill["dependencies"]}
    assert {"pypi:fastapi", "pypi:psycopg"} <= set(needs["dbvalet"])
    assert "pypi:httpcore" in needs["pypi:httpx"]
    assert "pypi:httpcore" not in needs["dbvalet"]


def test_the_bill_of_an_image_has_the_packages_of_debian_and_of_python(sbom: ModuleType) -> None:
    listed = {
        "os": {"ID": "debian", "VERSION_ID": '"12"'},
        "dpkg": STATUS,
        "python": [
            {"name": "Typing_Extensions", "version": "4.0", "license": "PSF-2.0"},
            {"name": "long", "version": "1", "license": "The whole\ntext"},
        ],
    }
    bill = json.loads(sbom.as_json(sbom.of_packages("dbvalet", "sha256:ab", listed)))
    assert {each["purl"] for each in bill["components"]} == {
        "pkg:deb/debian/libc6@2.36-9?arch=amd64&distro=debian-12",
        "pkg:pypi/typing-extensions@4.0",
        "pkg:pypi/long@1",
    }
    assert by_name(bill)["typing-extensions"]["licenses"] == [{"license": {"name": "PSF-2.0"}}]
    assert "licenses" not in by_name(bill)["long"]
    assert bill["metadata"]["component"]["version"] == "sha256:ab"


def test_without_docker_or_without_the_image_it_is_one_line(
    sbom: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert sbom.main(["--image", "dbvalet", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "scripts/sbom: docker is not installed\n"
