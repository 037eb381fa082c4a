"""Ask pip-audit for the known weaknesses of what is locked, less those that are accepted for a while."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
ACCEPTED = ROOT / "requirements" / "accepted.toml"

LOCKS = ("requirements/dev.lock", "requirements/build.lock")
"""dev.lock has all of run.lock and demo.lock."""

SECONDS = 120
"""For all packages, about 120 requests."""

COMMAND = [
    str(Path(sys.executable).with_name("pip-audit")),
    *(f"--requirement={lock}" for lock in LOCKS),
    # The lock says it all: nothing is resolved and nothing installed.
    "--require-hashes",
    "--disable-pip",
    "--format=json",
    "--progress-spinner=off",
    "--timeout=5",
]


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """A weakness that is known and accepted until a day."""

    id: str
    package: str
    reason: str
    until: date


class Mistake(Exception):
    """The list of accepted weaknesses, or how pip-audit is called, is wrong."""


def main(arguments: Sequence[str]) -> int:
    """Audit; 0 is well, or not possible here, 1 a weakness, 2 a mistake."""
    strict = "--strict" in arguments
    try:
        accepted = read_accepted(ACCEPTED.read_text())
        report, reason = ask()
    except Mistake as mistake:
        print(f"scripts/audit: {mistake}", file=sys.stderr)
        return 2
    if report is None:
        print(f"not audited: no list of weaknesses can be reached here ({reason})")
        return int(strict)
    lines, failed = judged(report, accepted, datetime.now(UTC).date())
    print("\n".join(lines))
    return int(failed or (strict and any(line.startswith("not audited") for line in lines)))


def ask() -> tuple[dict[str, Any] | None, str]:
    """Run pip-audit; gives its report, or None and why there is none.

    Raises: Mistake
    """
    try:
        ended = subprocess.run(COMMAND, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return None, f"no answer within {SECONDS} s"
    if ended.returncode == 2:
        raise Mistake(f"pip-audit does not take its arguments: {ended.stderr.strip().splitlines()[-1]}")
    try:
        return json.loads(ended.stdout), ""
    except json.JSONDecodeError:
        # Without a network it ends with a traceback, whose last line begins with the class of the exception.
        last = (ended.stderr.strip() or "no reason given").splitlines()[-1]
        return None, re.split(r"[:(]", last, maxsplit=1)[0].rpartition(".")[2]


def judged(report: dict[str, Any], accepted: Sequence[Accepted], today: date) -> tuple[list[str], bool]:
    """Tell what a report means: lines for a person, and whether something is in it that nobody accepted.

    A package that the service does not know is skipped by pip-audit, which then says that nothing was found: behind a
    mirror that serves packages and no weaknesses, these are all.
    """
    packages = report["dependencies"]
    skipped = sorted(each["name"] for each in packages if "skip_reason" in each)
    if len(skipped) == len(packages):
        return [f"not audited: what answers here knows none of {len(packages)} packages"], False
    lines: list[str] = []
    failed = False
    used = set[Accepted]()
    for package in packages:
        for weakness in package.get("vulns", []):
            names = {weakness["id"], *weakness.get("aliases", [])}
            fixed = ", ".join(weakness.get("fix_versions", [])) or "no version yet"
            text = f"{package['name']} {package['version']}: {weakness['id']}, corrected in {fixed}"
            of_it = [each for each in accepted if each.package == package["name"] and each.id in names]
            used.update(of_it)
            holding = [each for each in of_it if today < each.until]
            if holding:
                lines.append(f"{text}; accepted until {holding[0].until}: {holding[0].reason}")
            else:
                over = f"; accepted until {of_it[0].until}, which is over" if of_it else ""
                lines.append(f"KNOWN WEAKNESS {text}{over}")
                failed = True
    lines += [f"no longer needed in requirements/accepted.toml: {each.id}" for each in accepted if each not in used]
    if skipped:
        lines.append(f"not audited, as they are not known there: {', '.join(skipped)}")
    lines.append(f"audited: {len(packages) - len(skipped)} packages")
    return lines, failed


def read_accepted(text: str) -> list[Accepted]:
    """Read the accepted weaknesses.

    Raises: Mistake, when one lacks its reason or its day
    """
    try:
        entries = tomllib.loads(text).get("accepted", [])
        read = [Accepted(**entry) for entry in entries]
    except (tomllib.TOMLDecodeError, TypeError) as problem:
        raise Mistake(f"requirements/accepted.toml: {problem}") from None
    for each in read:
        if not each.reason.strip() or type(each.until) is not date:
            raise Mistake(f"requirements/accepted.toml: {each.id} needs a reason and a day in until")
    return read


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
