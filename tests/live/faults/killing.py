"""dbvalet is killed before, while or after it changes something, and the request is sent again with its key."""

import sys
from collections.abc import Callable
from pathlib import Path

import httpx

from tests.live.dying import AFTER, DURING
from tests.live.faults.case import Case
from tests.live.faults.judgement import due, shown_again
from tests.live.faults.service import Answer
from tests.live.test_backup_routes import ONE
from tests.unit.running import INSTALLED, TOKEN, configuration, serving

DYING = [sys.executable, "-m", "tests.live.dying"]
ROOT = Path(__file__).parents[3]


def ask(url: str, case: Case, key: str = "of") -> Answer | None:
    """Send the request; None when the connection ended without an answer."""
    try:
        response = httpx.post(
            f"{url}{ONE}/action",
            headers={"Authorization": f"Bearer {TOKEN}", "Idempotency-Key": f"{key}-{case.action}"},
            json={"action_name": case.action, "params": case.params},
            timeout=30,
            trust_env=False,
        )
    except httpx.TransportError:
        return None
    return Answer(response.status_code, response.content, "Idempotent-Replayed" in response.headers)


def killed_and_asked_again(
    case: Case, at: str, url: str, folder: Path, *, settle: Callable[[], object] = lambda: None
) -> None:
    """Hold what is done and what is told against what the server shows.

    `settle` waits until the server is no more at work for the one that was killed.
    """
    config = configuration(folder, {"id": "ad-x", "url": url})
    more = {"PYTHONPATH": f"{ROOT}:{INSTALLED}", "DIE": at}
    with serving(config, more=more, program=DYING) as running:
        assert ask(running.url, case) is None
    settle()
    done = case.is_done()
    assert done == (at == AFTER) or at == DURING
    if done:
        case.meanwhile()
    with serving(config) as running:

        def told(key: str = "of") -> Answer:
            answer = ask(running.url, case, key)
            assert answer is not None
            return answer

        first, again = told(), told()
        assert first.code == (due(case) if done else "answer_unknown" if case.cannot_tell else "ok"), first.body
        assert (again.status, again.body) == (first.status, first.body)
        assert again.replayed == (first.code == "ok")
        if done:
            assert case.is_left_alone(), first.body
            first = shown_again(case, first, told)
        else:
            assert case.is_done() != bool(case.cannot_tell)
        if first.code == "ok":
            # Whoever was there to the end is told the same.
            case.prepare()
            assert told("anew").body == first.body
