"""The fault table would show what is wrong: answers that lie, effects that happen twice, networks that cut nothing."""

import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.live.faults.case import Case, until
from tests.live.faults.judgement import judge, shown_again
from tests.live.faults.proxy import Proxy, Trap
from tests.live.faults.service import Answer, Broken

OK = Answer(200, b'{"ok":1,"result":null}', replayed=False)


def refused(status: int, code: str) -> Answer:
    return Answer(status, json.dumps({"ok": 0, "error": "as it says", "code": code}).encode(), replayed=False)


LATER, TAKEN, UNKNOWN = refused(503, "engine_unavailable"), refused(409, "conflict"), refused(409, "answer_unknown")
GONE = refused(404, "not_found")
LACKING = refused(403, "privilege_missing")


ALREADY_THERE = refused(409, "already_exists")
NEVER, SINCE = "It has no clock.", "Others made another."


def a_case(
    *, done: bool = False, left_alone: bool = True, dies: bool = False, never: str = "", since: str = ""
) -> Case:
    return Case(
        "act",
        None,
        is_done=lambda: done,
        is_left_alone=lambda: left_alone,
        dies_with_the_server=dies,
        cannot_tell=never,
        others_changed_it=since,
    )


@pytest.mark.parametrize(
    ("case", "first", "final", "was_done"),
    [
        (a_case(done=True), LATER, OK, False),
        (a_case(), LATER, OK, True),
        (a_case(), OK, OK, True),
        (a_case(never=NEVER), LATER, UNKNOWN, True),
        (a_case(never=NEVER), LATER, UNKNOWN, False),
        (a_case(since=SINCE), LATER, UNKNOWN, True),
        (a_case(since=SINCE), OK, OK, True),
        (a_case(), TAKEN, TAKEN, False),
        (a_case(dies=True), LATER, GONE, False),
        (a_case(done=True), LACKING, OK, False),
    ],
)
def test_what_is_true_passes(case: Case, first: Answer, final: Answer, *, was_done: bool) -> None:
    judge(case, first, final, was_done=was_done)


@pytest.mark.parametrize(
    ("case", "first", "final", "was_done", "kind"),
    [
        (a_case(done=False), LATER, OK, False, "said done, is not"),
        (a_case(left_alone=False), LACKING, OK, True, "done twice"),
        (a_case(left_alone=False), LATER, OK, True, "done twice"),
        (a_case(left_alone=False), LATER, UNKNOWN, True, "done twice"),
        (a_case(), OK, UNKNOWN, True, "done twice"),
        (a_case(done=True), TAKEN, TAKEN, False, "done twice"),
        (a_case(), TAKEN, TAKEN, True, "odd"),
        (a_case(), LATER, UNKNOWN, True, "odd"),
        (a_case(), LATER, ALREADY_THERE, True, "odd"),
        (a_case(since=SINCE), LATER, OK, True, "odd"),
        (a_case(since=SINCE), LATER, UNKNOWN, False, "no recovery"),
        (a_case(), LATER, UNKNOWN, False, "no recovery"),
        (a_case(), LATER, GONE, False, "no recovery"),
    ],
)
def test_what_is_not_is_named(case: Case, first: Answer, final: Answer, *, was_done: bool, kind: str) -> None:
    with pytest.raises(Broken) as broken:
        judge(case, first, final, was_done=was_done)
    assert broken.value.kind == kind


@pytest.mark.parametrize(("told", "is_right"), [(OK, True), (UNKNOWN, False), (TAKEN, False)])
def test_what_others_took_back_hides_nothing_any_more(told: Answer, *, is_right: bool) -> None:
    taken_back: list[bool] = []
    case = replace(a_case(done=True, since=SINCE), take_back=lambda: taken_back.append(True))
    if is_right:
        assert shown_again(case, UNKNOWN, lambda: told) == told
    else:
        with pytest.raises(Broken, match="ok is due"):
            shown_again(case, UNKNOWN, lambda: told)
    assert taken_back == [True]


def test_who_asks_again_must_not_undo_it() -> None:
    states = iter([True, False])
    case = replace(a_case(since=SINCE), is_done=lambda: next(states))
    with pytest.raises(Broken) as broken:
        shown_again(case, UNKNOWN, lambda: OK)
    assert broken.value.kind == "done twice"


@pytest.mark.parametrize("case", [a_case(), a_case(never=NEVER)])
def test_where_nothing_was_hidden_nobody_is_asked(case: Case) -> None:
    final = UNKNOWN if case.cannot_tell else OK
    assert shown_again(case, final, lambda: pytest.fail("it was asked")) == final


class Echo:
    """A server that answers with what it got, when it is let."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.got: list[bytes] = []
        self.may_answer = threading.Event()
        self.may_answer.set()
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return  # closed in the end
            threading.Thread(target=self.answer, args=(connection,), daemon=True).start()

    def answer(self, connection: socket.socket) -> None:
        with connection:
            while data := connection.recv(65_536):
                self.got.append(data)
                self.may_answer.wait()
                try:
                    connection.sendall(data)
                except OSError:
                    return  # whoever asked has left


@pytest.fixture
def echo() -> Iterator[Echo]:
    made = Echo()
    yield made
    made.may_answer.set()
    made.listener.close()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[Proxy]:
    with Proxy("127.0.0.1", echo.port) as made:
        yield made


def asked(connection: socket.socket, text: bytes) -> bytes:
    """Send something and give what comes back; nothing when the connection was cut."""
    connection.sendall(text)
    try:
        return connection.recv(65_536)
    except ConnectionResetError:
        return b""


def connected(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=20)


def test_an_answer_is_lost_and_its_request_was_heard(proxy: Proxy, echo: Echo) -> None:
    trap = proxy.set(Trap(b"DROP", loses_answer=True))
    with connected(proxy) as connection:
        assert asked(connection, b"SELECT") == b"SELECT"
        assert asked(connection, b"DROP x") == b""
    assert trap.sprung.is_set()
    assert echo.got == [b"SELECT", b"DROP x"]
    with connected(proxy) as connection:
        assert asked(connection, b"DROP y") == b"DROP y"


def test_something_happens_so_many_requests_after_the_statement_and_before_the_server_has_it(
    proxy: Proxy, echo: Echo
) -> None:
    heard: list[list[bytes]] = []
    proxy.set(Trap(b"prepare", after=1, before=lambda: heard.append([*echo.got])))
    with connected(proxy) as connection:
        assert asked(connection, b"prepare x") == b"prepare x"
        assert asked(connection, b"execute") == b"execute"
    assert heard == [[b"prepare x"]]


def test_a_server_that_is_at_work_for_somebody_who_left_is_counted(proxy: Proxy, echo: Echo) -> None:
    echo.may_answer.clear()
    with connected(proxy) as connection:
        connection.sendall(b"long work")
        until(lambda: echo.got == [b"long work"])
    until(lambda: proxy.abandoned == 1)
    echo.may_answer.set()
    until(lambda: proxy.abandoned == 0)
