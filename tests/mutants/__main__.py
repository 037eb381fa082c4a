"""Make small changes to the engine packages, run the tests of each, and print how many of them no test notices."""

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from tests.live.servers import remove_abandoned
from tests.mutants.candidates import Mutant, equivalent, mutants_of, sample, statement_at
from tests.mutants.suites import SUITES, Recording, Suite, record
from tests.mutants.trial import Outcome, Servers, Trials

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Tried:
    """A mutant, and what became of it."""

    mutant: Mutant
    diff: str
    outcome: Outcome
    by: str
    equivalent: str | None

    def line(self) -> str:
        return f"{self.mutant.module}:{self.mutant.line} {self.mutant.operator} ({self.outcome})\n{self.diff}"


def copy_tree(to: Path) -> Path:
    """Copy the files of the checkout, changed ones as they are; nothing is ever changed in the checkout itself."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            (to / name).write_bytes((ROOT / name).read_bytes())
            (to / name).chmod((ROOT / name).stat().st_mode)
    return to


def try_package(suite: Suite, folder: Path, options: argparse.Namespace) -> list[Tried]:
    """Try a sample of the mutants of a package; those that are in the folder from before are not tried again."""
    tree = copy_tree(Path(options.trees, suite.package))
    record(suite, tree, folder)
    recording, sources = Recording(suite, folder), suite.sources(tree)
    found = [each for module, source in sources.items() for each in mutants_of(module, source)]
    chosen = sample(found, options.sample, random.Random(f"{options.seed} {suite.package}"), sources)
    known, log = equivalent(), folder / f"{suite.package}.tried"
    before: list[dict[str, Any]] = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    seen = {(each["module"], each["line"], each["diff"]): each for each in before}
    print(f"{suite.package}: {len(chosen)} of {len(found)} possible mutants", flush=True)
    tried: list[Tried] = []
    with Servers(suite) as servers:
        trials = Trials(suite, tree, recording, servers)
        for number, mutant in enumerate(chosen, 1):
            source = sources[mutant.module]
            diff = mutant.diff(source)
            row = seen.get((mutant.module, mutant.line, diff), {})
            if not row or (options.again and row["outcome"] in ("survived", "no test")):
                lines = statement_at(source, mutant.line)
                outcome, by = trials.of(mutant.module, lines, mutant.code(source), options.also, options.seconds)
                row = {"module": mutant.module, "diff": diff, "outcome": outcome, "by": by}
                with log.open("a") as file:
                    file.write(json.dumps({**row, **asdict(mutant)}) + "\n")
            reason = known.get((mutant.module, diff))
            tried.append(Tried(mutant, diff, cast(Outcome, row["outcome"]), row["by"], reason))
            print(f"  {number:3} {row['outcome']:9} {mutant.module}:{mutant.line} {row['by']}", flush=True)
    return tried


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/mutants", description=__doc__)
    parser.add_argument("packages", nargs="*", metavar="PACKAGE", help=f"{', '.join(SUITES)}; without, all")
    parser.add_argument("--sample", type=int, default=50, metavar="N", help="mutants of each package (default 50)")
    parser.add_argument("--seed", type=int, default=6, help="which ones (default 6)")
    parser.add_argument("--least", type=float, default=80, metavar="PERCENT", help="end with 1 below it (default 80)")
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="where recordings and outcomes are kept, so that a run can go on"
    )
    parser.add_argument(
        "--seconds", type=float, default=40, help="what the tests of one mutant may take by themselves (default 40)"
    )
    parser.add_argument("--again", action="store_true", help="try what survived before once more")
    parser.add_argument(
        "--also", action="append", default=[], metavar="TEST", help="run this first for each: a new test; repeatable"
    )
    options = parser.parse_args()
    if unknown := [each for each in options.packages if each not in SUITES]:
        parser.error(f"no package {unknown[0]}; there are {', '.join(SUITES)}")
    remove_abandoned()
    with tempfile.TemporaryDirectory(prefix="dbvalet-mutants-") as temporary:
        options.trees = temporary
        folder = options.keep or Path(temporary, "kept")
        folder.mkdir(parents=True, exist_ok=True)
        tried = {
            name: try_package(SUITES[name], folder.absolute(), options) for name in options.packages or list(SUITES)
        }
    return report(tried, options.least)


def report(tried: dict[str, list[Tried]], least: float) -> int:
    """Print the table and who survived; a mutant that is known to be no different is in no figure."""
    print(f"\n{'package':12} mutants  killed  timeout  survived  score")
    together: list[Tried] = []
    for name, every in [*tried.items(), ("all", together)]:
        rows = [each for each in every if each.equivalent is None]
        counts = Counter(each.outcome for each in rows)
        survived = counts["survived"] + counts["no test"]
        if name != "all":
            together += every
        score = f"{100 - 100 * survived / len(rows):.1f} %" if rows else "-"
        print(f"{name:12} {len(rows):7}  {counts['killed']:6}  {counts['timeout']:7}  {survived:8}  {score}")
    survivors = [each for each in together if each.equivalent is None and each.outcome in ("survived", "no test")]
    for each in together:
        if each.equivalent is not None:
            print(f"\n{each.line()}\n  no different: {each.equivalent}")
    for each in survivors:
        print(f"\n{each.line()}")
    rows = [each for each in together if each.equivalent is None]
    return 0 if 100 * (len(rows) - len(survivors)) >= least * len(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
