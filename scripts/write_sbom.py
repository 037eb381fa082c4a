"""Write the bills of materials: of the lock, and of an image as Docker has it."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL
from packaging.markers import Marker

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements" / "run.lock"
DOCKERFILE = ROOT / "Dockerfile"

LIST_PACKAGES = """
import json
from importlib.metadata import distributions
from pathlib import Path
status = Path("/var/lib/dpkg/status")
print(json.dumps({
    "os": dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line),
    "dpkg": status.read_text() if status.exists() else "",
    "python": [
        {"name": each.metadata["Name"], "version": each.version,
         "license": each.metadata["License-Expression"] or each.metadata["License"] or ""}
        for each in distributions()
    ],
}))
"""
"""For the image's own Python: dbvalet's environment and, as it sees no other, nothing of the base's Python."""


class NotWritten(Exception):
    """A bill cannot be written; the text says why."""


def main(arguments: Sequence[str]) -> int:
    """Write one or both."""
    parser = argparse.ArgumentParser(prog="scripts/sbom", description="Write what dbvalet is made of, as CycloneDX.")
    parser.add_argument("--image", metavar="NAME", help="also of this image, as Docker has it")
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "dist", metavar="FOLDER")
    given = parser.parse_args(arguments)
    given.folder.mkdir(parents=True, exist_ok=True)
    try:
        bills = {"dbvalet.cdx.json": of_lock(LOCK.read_text(), python_of_image(DOCKERFILE.read_text()))}
        if given.image:
            bills["image.cdx.json"] = of_image(given.image)
        for name, bom in bills.items():
            (given.folder / name).write_text(as_json(bom))
            print(f"{given.folder / name}: {len(bom.components)} packages")
    except NotWritten as problem:
        print(f"scripts/sbom: {problem}", file=sys.stderr)
        return 1
    return 0


def python_of_image(dockerfile: str) -> str:
    """Give the version of Python that the image is built on, which is not the one that this runs with: `3.13`."""
    found = re.search(r"^ARG BASE=python:(\d+\.\d+)", dockerfile, flags=re.MULTILINE)
    if found is None:
        raise NotWritten("The Dockerfile does not say which Python it is built on.")
    return found[1]


def of_lock(text: str, python: str) -> Bom:
    """Make the bill of a lock file for a version of Python, with the hashes of each package; those of other systems
    than Linux are left out.

    Which package needs which is what uv writes below each as `# via`.
    """
    bom = Bom()
    place = {
        "sys_platform": "linux",
        "platform_system": "Linux",
        "python_version": python,
        "python_full_version": f"{python}.0",
    }
    root = bom.metadata.component = Component(
        name="dbvalet", version=version("dbvalet"), type=ComponentType.APPLICATION, bom_ref="dbvalet"
    )
    found: dict[str, Component] = {"dbvalet": root}
    needed_by: dict[str, list[str]] = {}
    for entry in entries(text):
        requirement, _, marker = entry["requirement"].partition(";")
        if marker and not Marker(marker.strip()).evaluate(place):
            continue
        name, _, locked = requirement.strip().partition("==")
        name = name.partition("[")[0]
        found[name] = Component(
            name=name,
            version=locked,
            purl=PackageURL("pypi", None, name, locked),
            bom_ref=f"pypi:{name}",
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=each) for each in entry["hashes"]],
        )
        needed_by[name] = [each.partition(" ")[0].partition("[")[0] for each in entry["via"]]
    for name, needing in needed_by.items():
        bom.components.add(found[name])
        for each in needing:
            if each in found:
                bom.register_dependency(found[each], [found[name]])
    return bom


def entries(text: str) -> Iterable[dict[str, Any]]:
    """Read a lock of uv: `{"requirement": "a==1 ; marker", "hashes": […], "via": ["b", …]}` a package."""
    entry: dict[str, Any] | None = None
    for line in text.splitlines():
        words = line.strip().rstrip("\\").strip()
        if line[:1].isalnum():
            if entry:
                yield entry
            entry = {"requirement": words, "hashes": [], "via": []}
        elif entry and words.startswith("--hash=sha256:"):
            entry["hashes"].append(words.removeprefix("--hash=sha256:"))
        elif entry and words.startswith("#"):
            needing = words.removeprefix("#").strip().removeprefix("via").strip()
            if needing:
                entry["via"].append(needing)
    if entry:
        yield entry


def of_image(name: str) -> Bom:
    """Make the bill of an image: its Debian packages and the Python packages of dbvalet in it.

    Raises: NotWritten
    """
    docker = ["docker", "run", "--rm", "--network=none", "--read-only", "--entrypoint=/opt/dbvalet/bin/python"]
    listed = json.loads(_run([*docker, name, "-I", "-c", LIST_PACKAGES]))
    digest = _run(["docker", "image", "inspect", "--format={{.Id}}", name]).strip()
    return of_packages(name, digest, listed)


def of_packages(image: str, digest: str, listed: Mapping[str, Any]) -> Bom:
    """Make the bill of what `LIST_PACKAGES` printed."""
    bom = Bom()
    root = bom.metadata.component = Component(
        name=image, version=digest, type=ComponentType.CONTAINER, bom_ref=f"image:{image}"
    )
    system = {key: value.strip('"') for key, value in listed["os"].items()}
    distribution = f"{system['ID']}-{system.get('VERSION_ID', system.get('VERSION_CODENAME', 'unknown'))}"
    for each in debian_packages(listed["dpkg"]):
        qualifiers = {"arch": each["Architecture"], "distro": distribution}
        purl = PackageURL("deb", system["ID"], each["Package"], each["Version"], qualifiers)
        bom.components.add(Component(name=each["Package"], version=each["Version"], purl=purl, bom_ref=str(purl)))
    for each in listed["python"]:
        name = each["name"].lower().replace("_", "-").replace(".", "-")
        purl = PackageURL("pypi", None, name, each["version"])
        # Some packages have the whole text of their licence where its name belongs.
        licence = each["license"] if "\n" not in each["license"] else ""
        licences = [DisjunctiveLicense(name=licence)] if licence else []
        bom.components.add(
            Component(name=name, version=each["version"], purl=purl, bom_ref=str(purl), licenses=licences)
        )
    bom.register_dependency(root, bom.components)
    return bom


def debian_packages(status: str) -> Iterable[dict[str, str]]:
    """Read what dpkg has installed: `Package`, `Version` and `Architecture` of each."""
    for paragraph in status.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if ": " in line and line[0].isalpha())
        if fields.get("Status", "").endswith(" installed"):
            yield fields


def as_json(bom: Bom) -> str:
    """Write a bill, and check it against the schema of CycloneDX.

    Raises: NotWritten
    """
    text = JsonV1Dot6(bom).output_as_string(indent=2)
    if problem := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        raise NotWritten(f"it would not be CycloneDX: {problem}")
    return text + "\n"


def _run(command: Sequence[str]) -> str:
    try:
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise NotWritten(f"{command[0]} is not installed") from None
    if ended.returncode != 0:
        raise NotWritten(ended.stderr.strip().splitlines()[-1])
    return ended.stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
