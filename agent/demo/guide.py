"""Requests to the demo's dbvalet: each is shown with its answer, and held against what was to be expected."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import httpx

from agent.demo.processes import DemoError
from agent.demo.screen import Screen

ANSWER_SECONDS = 30.0
"""No action holds longer than 25 s."""

SHOWS_WITHIN_SECONDS = 10.0
"""How long what an application has begun may take to be seen."""

ENDS_WITHIN_SECONDS = 120.0
"""How long a backup or a restore of so little may take on a machine that does something else besides."""

OPERATION_SHOWN = ("id", "type", "status", "progress", "error")

Expected = Callable[[Any], bool]


class TourFailed(DemoError):
    """Something was not as the tour says that it is."""


class Guide:
    """Asks, shows and checks; counts what was done and what was rightly refused."""

    def __init__(self, client: httpx.Client, screen: Screen) -> None:
        """`client` knows address and token."""
        self.actions = 0
        self.refusals = 0
        self.brought_back = 0
        self._client = client
        self._screen = screen
        self._number = 0
        self._title = ""

    def heading(self, text: str) -> None:
        """Begin a part of the tour."""
        self._screen.heading(text)

    def done(self, title: str, database: str, action: str, params: Any = None, where: Expected | None = None) -> Any:
        """Perform an action and give its result, for which `where` must hold.

        Raises: TourFailed
        """
        path, body = self._begin_action(title, database, action, params)
        answer = self._send("POST", path, body)
        return self._end_action(answer, where)

    def done_when_seen(self, title: str, database: str, action: str, where: Expected) -> Any:
        """Perform an action that reads until its result shows what an application has just begun; the last one counts.

        Raises: TourFailed
        """
        path, body = self._begin_action(title, database, action, None)
        ends_at = time.monotonic() + SHOWS_WITHIN_SECONDS
        answer = self._send("POST", path, body)
        while answer.is_success and not where(answer.json()["result"]) and time.monotonic() < ends_at:
            time.sleep(0.02)
            answer = self._send("POST", path, body)
        return self._end_action(answer, where)

    def refused(self, title: str, database: str, action: str, params: Any, *, status: int, code: str) -> str:
        """Ask for what is refused, with this status and code, and give the text that says why.

        Raises: TourFailed
        """
        path, body = self._begin_action(title, database, action, params)
        answer = self._send("POST", path, body)
        self._show(answer, answer.json())
        return self._refused(answer, status, code)

    def read(
        self, title: str, path: str, where: Expected, part: Callable[[Any], Any] | None = None, part_is: str = ""
    ) -> Any:
        """Get a resource, for which `where` must hold. `part` takes out of it what is shown; `part_is` names that.

        Raises: TourFailed
        """
        self._begin(title, "GET", path)
        answer = self._send("GET", path)
        body = answer.json()
        shown = part(body) if part is not None and answer.is_success else body
        self._show(answer, shown, f"; shown: {part_is}" if part_is else "")
        if answer.status_code != 200 or not where(body):
            raise self.failure("the answer is another than 200 with what the tour says")
        return body

    def begun(self, title: str, path: str, *, may_lack_programs: bool = False) -> dict[str, Any] | None:
        """Begin something that outlives its request and give the answer.

        None where that is refused because programs are missing on this machine, if that may be.

        Raises: TourFailed
        """
        self._begin(title, "POST", path)
        answer = self._send("POST", path)
        body = answer.json()
        self._show(answer, body)
        if may_lack_programs and answer.status_code == 409 and body.get("code") == "precondition":
            self.refusals += 1
            return None
        if answer.status_code != 201:
            raise self.failure("it was to begin")
        return body

    def ended(self, title: str, path: str) -> None:
        """Wait for the end of an operation, which must be a good one; the last answer counts.

        Raises: TourFailed
        """
        self._begin(title, "GET", path)
        ends_at = time.monotonic() + ENDS_WITHIN_SECONDS
        answer = self._send("GET", path)
        while answer.is_success and answer.json()["operation"]["finished_at"] is None and time.monotonic() < ends_at:
            time.sleep(0.05)
            answer = self._send("GET", path)
        body = answer.json()
        shown = body
        if answer.is_success:
            shown = {"operation": {field: body["operation"][field] for field in OPERATION_SHOWN}}
        self._show(answer, shown, f"; shown: {len(OPERATION_SHOWN)} fields of it")
        if answer.status_code != 200 or body["operation"]["status"] != "finished":
            raise self.failure("the operation was to be finished")

    def refused_without_token(self, title: str, path: str) -> None:
        """Ask as somebody who has none.

        Raises: TourFailed
        """
        self._begin(title, "GET", path)
        answer = self._send("GET", path, token=False)
        self._show(answer, answer.json())
        self._refused(answer, 401, "unauthenticated")

    def check(self, truth: bool, text: str) -> None:
        """Tell what was seen past dbvalet: by the application, through the engine's own driver.

        Raises: TourFailed
        """
        if not truth:
            raise self.failure(f'this is not so: "{text}"')
        self._screen.observation(text)

    def _begin_action(self, title: str, database: str, action: str, params: Any) -> tuple[str, dict[str, Any]]:
        path = f"/api/databases/{database}/action"
        body = {"action_name": action} if params is None else {"action_name": action, "params": params}
        self._begin(title, "POST", path, body)
        return path, body

    def _begin(self, title: str, method: str, path: str, body: Any = None) -> None:
        self._number += 1
        self._title = title
        self._screen.request(self._number, title, method, path, body)

    def _end_action(self, answer: httpx.Response, where: Expected | None) -> Any:
        body = answer.json()
        self._show(answer, body)
        if answer.status_code != 200 or body.get("ok") != 1:
            raise self.failure("the action was to be done")
        if where is not None and not where(body["result"]):
            raise self.failure("the result is another than the tour says")
        self.actions += 1
        return body["result"]

    def _refused(self, answer: httpx.Response, status: int, code: str) -> str:
        body = answer.json()
        if (answer.status_code, body.get("code")) != (status, code):
            raise self.failure(f"it was to be refused with {status} and {code}")
        self.refusals += 1
        return str(body["error"])

    def _send(self, method: str, path: str, body: Any = None, *, token: bool = True) -> httpx.Response:
        request = self._client.build_request(method, path, json=body)
        if not token:
            del request.headers["Authorization"]
        try:
            answer = self._client.send(request)
            answer.json()
        except httpx.TransportError as problem:
            raise self.failure(f"dbvalet does not answer: {problem!r}") from problem
        except ValueError as problem:
            raise self.failure("the answer is not JSON") from problem
        return answer

    def _show(self, answer: httpx.Response, body: Any, note: str = "") -> None:
        self._screen.answer(answer.status_code, body, answer.elapsed.total_seconds(), note)

    def failure(self, text: str) -> TourFailed:
        """Make the error that says where the tour was."""
        return TourFailed(f'the tour failed at step {self._number}, "{self._title}": {text}')
