"""Requests made up from the OpenAPI document, by schemathesis with all its checks, against four live servers.

A share runs always; `--long` runs 20,000 of them. TEST_SEED repeats a run.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from schemathesis import engine as engine_of_schemathesis
from schemathesis.checks import CHECKS
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events

from agent.api.openapi import ACTION_PATH
from agent.asked import HEADER
from engines.engine import installed_engines
from tests.live.four import IDS, TOKENS, Four, four
from tests.live.hostile_names import SEED
from tests.live.servers import LiveServer

pytestmark = [pytest.mark.newest_version]

NOTHING_OF_IT = "dbvalet has no such thing, and says so with 400 to whoever asks, however well"
NOT_FOR_EVERY_ENGINE = "400 where the engine, or this configuration, has nothing of it"

MAY_BE_REFUSED = {
    **dict.fromkeys(
        (
            "upgrade_database",
            "get_database_health",
            "list_log_archives",
            "list_firewall_rules",
            "create_firewall_rule",
            "change_firewall_rule",
            "delete_firewall_rule",
            "list_managed_ranges",
            "refuse_login",
            "refuse_database",
            "refuse_run",
            "refuse_provisioning",
            "refuse_change_by_patch",
            "refuse_change_by_put",
            "refuse_change_by_delete",
        ),
        ("400", NOTHING_OF_IT),
    ),
    "get_recovery_window": ("400", NOT_FOR_EVERY_ENGINE),
    "restore_to_instant": ("400", NOT_FOR_EVERY_ENGINE),
    "create_user": ("422", "the confirmation must be the password, and some names are those of system accounts"),
    "change_user": ("422", "the confirmation must be the password"),
    "perform_action": ("422", "which sql_mode there is, and which retention policy is possible, the server says"),
}
"""What a route may answer, by operation, to a request that fits its schema, and why: for `positive_data_acceptance`."""

WITHOUT = {"disabled_actions": ["change-features"]}
"""`force-ssl` is the whole server's, and would end every session without TLS: the neighbours' too."""

PHASES = ("examples", "coverage", "fuzzing", "stateful")
CASES = 20_000

ACCEPTANCE = ["2xx", "3xx", "401", "403", "404", "409", "429", "5xx"]
"""What schemathesis takes for an acceptance; `not_a_server_error` looks at 5xx."""


@dataclass
class Outcome:
    """What a run of schemathesis came to."""

    cases: int = 0
    statuses: Counter[int] = field(default_factory=Counter[int])
    done: Counter[str] = field(default_factory=Counter[str])
    """Requests that were carried out, by operation."""
    actions: Counter[str] = field(default_factory=Counter[str])
    """Actions that were carried out, by name."""
    checks: set[str] = field(default_factory=set[str])
    failures: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    """By operation and check."""

    def fail(self, kind: str, text: str) -> None:
        self.failures.setdefault(kind, []).append(text)


def settings(role: str, four: Four, examples: int, phases: Sequence[str], seed: int) -> dict[str, Any]:
    """Give the configuration of schemathesis: what it cannot guess, and how much of it."""
    (own,) = set(four.names.values())
    return {
        "base-url": four.running.url,
        "seed": seed,
        "continue-on-failure": True,
        "suppress-health-check": ["all"],
        "request-timeout": 60,
        "auth": {"openapi": {"token": {"bearer": TOKENS[role]}}},
        "generation": {"max-examples": examples, "database": "none"},
        "phases": {"enabled": False, **{phase: {"enabled": True} for phase in phases}},
        "dictionaries": {
            "databases": {"values": [*IDS.values(), "ad-unknown"]},
            "logical": {"values": [own, "made_up", "custom-db"]},
            "policies": {"values": ["month", "30-days", "autogen"]},
            "durations": {"values": ["30d", "INF", "1h30m"]},
            "backends": {"values": [*four.backends(), four.neighbours.sessions()[0][0]]},
        },
        "parameters": {
            "path.database_id": {"dictionary": "databases", "probability": 0.9},
            "path.addon": {"dictionary": "databases", "probability": 0.5},
            "path.app": {"dictionary": "databases", "probability": 0.5},
            "body.params.database_name": {"dictionary": "logical", "probability": 0.7},
            "body.params.name": {"dictionary": "policies", "probability": 0.5},
            "body.params.duration": {"dictionary": "durations", "probability": 0.5},
            "body.params.pid": {"dictionary": "backends", "probability": 0.5},
        },
        "operations": [
            {
                "include-operation-id": operation,
                "checks": {"positive_data_acceptance": {"expected-statuses": [*ACCEPTANCE, status]}},
            }
            for operation, (status, _) in MAY_BE_REFUSED.items()
        ],
    }


def run(
    outcome: Outcome,
    role: str,
    four: Four,
    *,
    examples: int,
    phases: Sequence[str] = PHASES,
    seed: int = SEED,
    actions_of: str | None = None,
) -> None:
    """Let schemathesis make its cases, and add what came of them to an outcome.

    With `actions_of`, of the actions of one engine alone: of all that may be sent, most is not for the one it goes to.
    """
    with four.client() as client:
        document = client.get("/openapi.json").json()
    chosen = settings(role, four, examples, phases, seed)
    if actions_of is not None:
        document["paths"] = {ACTION_PATH: document["paths"][ACTION_PATH]}
        content = document["paths"][ACTION_PATH]["post"]["requestBody"]["content"]["application/json"]
        content["schema"]["anyOf"] = [each for each in content["schema"]["anyOf"] if f"/{actions_of}." in each["$ref"]]
        content["examples"] = {
            name: each for name, each in content["examples"].items() if name.startswith(f"{actions_of}.")
        }
        chosen["parameters"]["path.database_id"] = IDS[actions_of]
        chosen["generation"]["mode"] = "positive"
    config = SchemathesisConfig.from_dict(chosen)
    schema = schemathesis.openapi.from_dict(document, config=config)
    for event in engine_of_schemathesis.from_schema(schema).execute():
        match event:
            case events.ScenarioFinished():
                note(event, outcome)
            case events.NonFatalError() | events.FatalError():
                outcome.fail("schemathesis", f"{event}")
            case events.EngineFinished():
                for each in event.failures:
                    outcome.fail(f"{each.operation} {each.title}", each.message)
            case _:
                pass


@schemathesis.hook("before_call")
def take_a_key_of_its_own(_: Any, case: schemathesis.Case, kwargs: dict[str, Any]) -> None:
    """schemathesis sends one key with many bodies, of which all but the first are refused; a bad key stays as it is."""
    del kwargs
    key = (case.headers or {}).get(HEADER)
    if isinstance(key, str) and re.fullmatch("[!-~]{1,100}", key):
        case.headers[HEADER] = f"{key}-{time.time_ns()}"


def note(event: events.ScenarioFinished, outcome: Outcome) -> None:
    for case_id, interaction in event.recorder.interactions.items():
        outcome.cases += 1
        answer = interaction.response
        if answer is None:
            outcome.fail("no answer", f"{interaction.request.method} {interaction.request.uri}")
            continue
        outcome.statuses[answer.status_code] += 1
        case: Any = event.recorder.cases[case_id].value
        if answer.status_code < 300:
            outcome.done[case.operation.label] += 1
            if case.operation.definition.raw["operationId"] == "perform_action" and not case.body.get("dry_run"):
                outcome.actions[f"{case.path_parameters['database_id']} {case.body['action_name']}"] += 1
        for each in event.recorder.checks.get(case_id, []):
            outcome.checks.add(each.name)
            if each.failure_info is None:
                continue
            failure = each.failure_info.failure
            outcome.fail(
                f"{failure.operation} {each.name}",
                f"{failure.title}: {failure.message}\n"
                f"  {interaction.request.method} {interaction.request.uri} {interaction.request.body!r}"
                f" → {answer.status_code} {answer.content[:300]!r}",
            )


@pytest.fixture
def of_four(
    postgresql: LiveServer, mysql: LiveServer, mongodb: LiveServer, influxdb: LiveServer, tmp_path: Path
) -> Iterator[Four]:
    lives = {"postgresql": postgresql, "mysql": mysql, "mongodb": mongodb, "influxdb": influxdb}
    with four(lives, tmp_path, of_database=lambda _: WITHOUT, with_programs=True) as made:
        yield made


def assert_well(outcome: Outcome) -> None:
    print(f"TEST_SEED={SEED}", outcome)
    assert not outcome.failures, "\n".join(f"{kind}: {texts[0]}" for kind, texts in outcome.failures.items())
    assert outcome.checks >= set(CHECKS.get_all_names())
    assert outcome.cases > 500


@pytest.fixture
def untouched(of_four: Four) -> Iterator[None]:
    """Nothing of others has changed, and nobody's session was ended."""
    before, sessions = of_four.neighbours.look(), of_four.neighbours.sessions()
    yield
    assert of_four.neighbours.look() == before
    assert of_four.neighbours.sessions() == sessions


@pytest.mark.usefixtures("untouched")
def test_a_share_of_what_the_document_allows_is_answered_as_it_says(of_four: Four) -> None:
    outcome = Outcome()
    run(outcome, "admin", of_four, examples=1)
    for role in ("operator", "reader"):
        run(outcome, role, of_four, examples=1, phases=("fuzzing",))
    assert_well(outcome)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("untouched")
def test_twenty_thousand_cases_are_answered_as_the_document_says(of_four: Four) -> None:
    outcome = Outcome()
    rounds = 0
    while outcome.cases < CASES:
        for role, examples in (("admin", 30), ("operator", 10), ("reader", 3)):
            run(outcome, role, of_four, examples=examples, seed=SEED + rounds)
            rounds += 1
        for engine in IDS:
            run(outcome, "admin", of_four, examples=200, phases=("examples", "fuzzing"), seed=SEED, actions_of=engine)
    assert_well(outcome)
    assert outcome.actions.keys() >= {
        f"{IDS[engine.name]} {name}"
        for engine in installed_engines().values()
        if engine.name in IDS
        for name in engine.actions
    }
