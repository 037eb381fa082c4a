"""The fault table: a row for each pair of engine and action, a column for each fault, and what was seen in all."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.live.faults.kinds import MEANING, Fault, Pair, pairs, why_not

PAGE = Path(__file__).parents[3] / "docs" / "reliability.md"
BEGIN, END = "<!-- the fault table: scripts/test --faults --write-table -->", "<!-- its end -->"

TOTALS = ("said done, is not", "done twice", "stuck", "lost", "leaked")
"""What must never be, beside answers that are late or odd and what does not recover."""

PASSED = "passed"


@dataclass(frozen=True)
class Result:
    """What became of a scenario."""

    pair: str
    fault: str
    outcome: str
    """`passed`, `skipped`, or what was broken."""


def notes() -> dict[str, str]:
    """Give each reason why a fault is left out the letter by which the table refers to it."""
    reasons = dict.fromkeys(reason for pair in pairs() for fault in Fault if (reason := why_not(pair, fault)))
    return {reason: chr(ord("a") + number) for number, reason in enumerate(reasons)}


def cell(pair: Pair, fault: Fault, results: Mapping[tuple[str, str], str]) -> str:
    """Say how often a scenario passed, what became of it otherwise, or why there is none."""
    reason = why_not(pair, fault)
    if reason is not None:
        return f"– {notes()[reason]}"
    outcome = results.get((str(pair), str(fault)), "not run")
    return "1" if outcome == PASSED else outcome


def totals(results: Iterable[Result]) -> str:
    """Count scenarios, and what was broken."""
    outcomes = Counter(each.outcome for each in results)
    broken = {kind: outcomes.pop(kind, 0) for kind in TOTALS}
    counted = [f"{outcomes.pop(PASSED, 0)} scenarios passed", *(f"{kind}: {number}" for kind, number in broken.items())]
    return ", ".join([*counted, *(f"{kind}: {number}" for kind, number in sorted(outcomes.items()))]) + "."


def table(results: Iterable[Result]) -> str:
    """Write the table as Markdown."""
    results = list(results)
    outcomes = {(each.pair, each.fault): each.outcome for each in results}
    lines = [
        "| engine | action | " + " | ".join(Fault) + " |",
        "|---" * (len(Fault) + 2) + "|",
        *(
            f"| {pair.engine} | `{pair.action}` | " + " | ".join(cell(pair, fault, outcomes) for fault in Fault) + " |"
            for pair in pairs()
        ),
        "",
        totals(results),
        "",
        *(f"- **{fault}**: {meaning}" for fault, meaning in MEANING.items()),
        "",
        *(f"- {letter}: {reason}" for reason, letter in notes().items()),
    ]
    return "\n".join(lines)


def is_whole(results: Iterable[Result]) -> bool:
    """Tell whether every scenario of the catalogue passed."""
    passed = {(each.pair, each.fault) for each in results if each.outcome == PASSED}
    return passed == {(str(pair), str(fault)) for pair in pairs() for fault in Fault if why_not(pair, fault) is None}


def kept(page: Path = PAGE) -> str:
    """Read the table that the page has."""
    return page.read_text().partition(BEGIN)[2].partition(END)[0].strip()


def keep(text: str, page: Path = PAGE) -> None:
    """Put a table into the page, in place of the one that it has."""
    before, _, rest = page.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


def results_in(reporter: pytest.TerminalReporter) -> Iterator[Result]:
    """Read what became of each scenario from the reports of a run."""
    for outcome in ("passed", "skipped", "failed", "error"):
        for report in reporter.stats.get(outcome, ()):
            properties = dict(getattr(report, "user_properties", ()))
            if "scenario" in properties and report.when == "call":
                pair, fault = properties["scenario"]
                yield Result(pair, fault, PASSED if outcome == "passed" else properties.get("broken", outcome))


def summarise(reporter: pytest.TerminalReporter, *, write: bool) -> None:
    """Print the table of a run; keep it in the page if that is wished and every scenario passed."""
    results = list(results_in(reporter))
    text = table(results)
    reporter.section("faults")
    reporter.write_line(text)
    if write and is_whole(results):
        keep(text)
        reporter.write_line("Kept in docs/reliability.md.")
    elif write:
        reporter.write_line("Not kept in docs/reliability.md: not every scenario was run and passed.")
