"""The log: one JSON object a line, and no secret in any."""

import errno
import io
import json
import logging
from typing import Any

import pytest

from agent.log import BLOT, LONGEST_TRACEBACK, Output, StandardLogging, make_log, secrets_in_url
from engines.errors import EngineUnavailable
from tests.fakes.service import PASSWORD, TOKENS, URL, Valet, running


def lines_of(stream: io.BytesIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def logged(secrets: set[str], **fields: Any) -> dict[str, Any]:
    stream = io.BytesIO()
    make_log(secrets=secrets, stream=stream).info("event", **fields)
    (line,) = lines_of(stream)
    return line


def test_a_line_has_its_event_level_and_time():
    line = logged(set(), number=5, nothing=None, yes=True, text="a\nb\u2028")
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "event", "level": "info", "number": 5, "nothing": None, "yes": True, "text": "a\nb\u2028"}


@pytest.mark.parametrize(("level", "expected"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_lines_below_the_level_are_left_out(level: str, expected: int):
    stream = io.BytesIO()
    log = make_log(level, stream=stream)
    for say in (log.debug, log.info, log.warning, log.error):
        say("event")
    assert len(lines_of(stream)) == expected


def test_secrets_are_blotted_out_wherever_they_turn_up():
    line = logged({"planted-secret", "planted-secret-2"}, text="a planted-secret-2 b", thing=["planted-secret", 5])
    assert line["text"] == f"a {BLOT} b"
    assert line["thing"] == f"['{BLOT}', 5]"


def raise_quoting(text: str) -> None:
    try:
        int(text)
    except ValueError as cause:
        raise EngineUnavailable(f"it says {text}") from cause


def test_secrets_are_blotted_out_of_tracebacks():
    stream = io.BytesIO()
    log = make_log(secrets={"planted-secret"}, stream=stream)
    try:
        raise_quoting("planted-" + "secret")
    except EngineUnavailable:
        log.exception("bug")

    (line,) = lines_of(stream)
    assert line["exception"].count(BLOT) == 2
    assert "planted-secret" not in stream.getvalue().decode()


@pytest.mark.parametrize(
    ("url", "also"),
    [
        ("fake://u:long-enough@h/d", {"long-enough"}),
        ("fake://u:p%40ss%2Fword-1@h/d", {"p%40ss%2Fword-1", "p@ss/word-1"}),
        ("fake://u:app@h/app", {":app@"}),
        ("fake://u:a%40b@h/d", {":a%40b@", ":a@b@"}),
        ("fake://u:p@ssword1@h/d", {"p@ssword1"}),
        ("fake://u@h/d", set()),
        ("fake://h/d", set()),
        ("fake://u:@h/d", set()),
        ("no url at all", set()),
        ("fake://u:pass[word@h/d", {"pass[word"}),
    ],
)
def test_the_secrets_of_a_url_are_the_url_and_its_password_as_written_and_as_meant(url: str, also: set[str]):
    assert secrets_in_url(url) == {url} | also


def test_a_short_password_does_not_blot_out_words():
    line = logged(secrets_in_url("fake://app:app@h/app"), text="app of application", url="fake://app:app@h/app")
    assert line["text"] == "app of application"
    assert "app:app@" not in line["url"]


def test_a_long_traceback_is_cut_in_its_middle():
    stream = io.BytesIO()
    log = make_log(secrets={"planted-secret"}, stream=stream)
    edge = "x" * (LONGEST_TRACEBACK // 2 - 40)
    try:
        raise_quoting(f"planted-{'y' * LONGEST_TRACEBACK}-planted-secret{edge}")
    except EngineUnavailable:
        log.exception("bug")

    (line,) = lines_of(stream)
    assert len(line["exception"]) == LONGEST_TRACEBACK + 3
    assert line["exception"].startswith("Traceback (most recent call last):\n")
    assert line["exception"].endswith(f"{BLOT}{edge}")
    assert "planted-secret" not in line["exception"]


async def test_an_action_is_one_line_with_who_what_where_outcome_and_time():
    async with running() as valet:
        for name, params, token in (
            ("add-thing", {"name": "planted-name"}, "operator"),
            ("add-thing", {"name": "planted-name"}, "operator"),
            ("drop-thing", {"name": "planted-name"}, "reader"),
        ):
            await valet.act(name, params, token=token)
        lines = valet.lines("action")

        assert [(line["who"], line["action"], line["database"], line["outcome"]) for line in lines] == [
            ("operator", "add-thing", "ad-one", "ok"),
            ("operator", "add-thing", "ad-one", "already_exists"),
            ("reader", "drop-thing", "ad-one", "forbidden"),
        ]
        for line in lines:
            assert set(line) == {
                "request_id", "who", "action", "database", "outcome", "ms", "event", "level", "timestamp"
            }  # fmt: skip
            assert 0 < line["ms"] < 5000
        assert "planted-name" not in valet.log.getvalue().decode()


async def test_neither_params_nor_results_nor_secrets_are_logged():
    async with running() as valet:
        valet.server().things = {"planted-result": "blue"}
        await valet.act("list-things")
        await valet.act("set-mode", "planted-params")
        await valet.act("planted-action")
        await valet.ask("GET", "/planted-path", headers={"X-Planted": "planted-header"})
        await valet.client.post(
            "/api/databases/planted-database/action", headers={"Authorization": "Bearer planted-token"}
        )
        valet.server().problem = RuntimeError(f"it quotes {URL} and {PASSWORD} and {TOKENS['admin']}")
        await valet.act("list-things")

        text = valet.log.getvalue().decode()
        assert "planted" not in text
        assert not [token for token in TOKENS.values() if token in text]
        assert f"it quotes {BLOT} and {BLOT} and {BLOT}" in text


@pytest.mark.parametrize("wrong", [None, "Bearer unknown-token-0123456789"])
async def test_a_request_of_nobody_is_a_line_too(wrong: str | None):
    async with running() as valet:
        await valet.client.post("/api/databases/ad-one/action", headers={"Authorization": wrong} if wrong else {})

        (line,) = valet.lines("action")
        assert (line["who"], line["action"], line["database"], line["outcome"]) == (None, None, None, "unauthenticated")


class Broken(io.BytesIO):
    """A stream that fails as a full disk does."""

    def write(self, *_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    flush = write  # pyright: ignore[reportAssignmentType]


async def test_what_was_done_is_answered_even_if_no_line_can_be_written():
    async with running() as valet:
        working = Valet(app=valet.app, client=valet.client, log=valet.log)
        working.service.dispatcher._log = make_log(stream=Broken())
        response = await working.act("add-thing", {"name": "second"})

        assert response.status_code == 200
        assert "second" in working.server().things


def test_lost_lines_are_counted():
    output = Output(Broken())
    output.write(b"line")
    output.flush()
    assert output.lost == 2


@pytest.mark.parametrize(
    ("level", "expected"),
    [(logging.DEBUG, None), (logging.INFO, "info"), (25, "info"), (logging.WARNING, "warning"), (50, "error")],
)
def test_what_a_library_says_is_a_line_of_the_same_form(level: int, expected: str | None):
    stream = io.BytesIO()
    logger = logging.Logger("some.library")
    logger.addHandler(StandardLogging(make_log(secrets={"planted-secret"}, stream=stream)))
    logger.log(level, "it says %s", "planted-secret")

    lines = lines_of(stream)
    assert [line["level"] for line in lines] == ([expected] if expected else [])
    for line in lines:
        assert (line["event"], line["logger"]) == ("library", "some.library")
        assert line["message"] == f"it says {BLOT}"


def test_an_exception_that_a_library_logs_is_logged_with_its_traceback():
    stream = io.BytesIO()
    logger = logging.Logger("some.library")
    logger.addHandler(StandardLogging(make_log(stream=stream)))
    try:
        raise_quoting("inside")
    except EngineUnavailable:
        logger.exception("it failed")

    (line,) = lines_of(stream)
    assert "EngineUnavailable: it says inside" in line["exception"]


def test_a_library_with_a_bad_message_is_not_disturbed(capsys: pytest.CaptureFixture[str]):
    stream = io.BytesIO()
    logger = logging.Logger("some.library")
    logger.addHandler(StandardLogging(make_log(stream=stream)))
    logger.warning("it says %d", "no number")

    assert stream.getvalue() == b""
    assert "Logging error" in capsys.readouterr().err
