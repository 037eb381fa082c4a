"""dbvalet is killed before, while or after it changes something, and the request is sent again with its key."""

import sys
from collections.abc import Callable
from pathlib import Path

import httpx

from tests.live.dying import AFTER, DURING
from tests.live.faults.case import Case
from tests.live.test_backup_routes import ONE
from tests.unit.running import INSTALLED, TOKEN, configuration, serving

DYING = [sys.executable, "-m", "tests.live.dying"]
ROOT = Path(__file__).parents[3]


def ask(url: str, case: Case) -> httpx.Response | None:
    """Send the request; None when the connection ended without an answer."""
    try:
        return httpx.post(
            f"{url}{ONE}/action",
            headers={"Authorization": f"Bearer {TOKEN}", "Idempotency-Key": f"of {case.action}".replace(" ", "-")},
            json={"action_name": case.action, "params": case.params},
            timeout=30,
            trust_env=False,
        )
    except httpx.TransportError:
        return None


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
        first, again = ask(running.url, case), ask(running.url, case)
    assert first is not None
    assert again is not None
    if case.cannot_tell:
        assert (first.status_code, first.json()["code"]) == (409, "answer_unknown")
    elif done:
        # Others have changed it since, where the server cannot tell that from what there was.
        assert first.status_code == 200 or first.json()["code"] == "answer_unknown", first.text
        assert case.is_left_alone(), first.text
    else:
        assert first.status_code == 200, first.text
        assert case.is_done()
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert ("Idempotent-Replayed" in again.headers) == (first.status_code == 200)
