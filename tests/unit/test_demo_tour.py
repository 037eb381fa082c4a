"""What the demo's guide takes for a success, a refusal and a failure of the tour."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from agent.demo import guide as guides
from agent.demo.accounts import Deployment
from agent.demo.guide import Guide, TourFailed
from agent.demo.recovery import bring_back
from agent.demo.screen import Screen

Answer = tuple[int, object]
OK = (200, {"ok": 1, "result": None})
CONFLICT = (409, {"ok": 0, "error": "not now", "code": "conflict"})


def guided(*answers: Answer) -> tuple[Guide, list[httpx.Request]]:
    """A guide to a dbvalet that gives these answers in turn, and the requests that it got."""
    left, asked = list(answers), list[httpx.Request]()

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        status, body = left.pop(0) if len(left) > 1 else left[0]
        # A stream, as from a socket: of one that is read already, httpx does not know how long it took.
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return httpx.Response(status, stream=httpx.ByteStream(content))

    client = httpx.Client(
        base_url="http://dbvalet", headers={"Authorization": "Bearer t"}, transport=httpx.MockTransport(answer)
    )
    return Guide(client, Screen()), asked


def test_an_action_is_shown_with_its_answer_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    guide, asked = guided((200, {"ok": 1, "result": [{"pid": 4711}]}))

    assert guide.done("Look.", "ad-pg", "pg-cancel-query", {"pid": 1}) == [{"pid": 4711}]

    (request,) = asked
    assert (request.method, request.url.path) == ("POST", "/api/databases/ad-pg/action")
    assert json.loads(request.content) == {"action_name": "pg-cancel-query", "params": {"pid": 1}}
    assert request.headers["Authorization"] == "Bearer t"
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:4] == [
        "  1. Look.",
        "     POST /api/databases/ad-pg/action",
        '     {"action_name": "pg-cancel-query", "params": {"pid": 1}}',
    ]
    assert lines[4].startswith("     200 OK (")
    assert lines[5] == '     {"ok": 1, "result": [{"pid": 4711}]}'
    assert (guide.actions, guide.refusals) == (1, 0)


def test_an_action_without_params_sends_none() -> None:
    guide, asked = guided(OK)
    guide.done("Look.", "ad-pg", "pg-list-queries")
    assert json.loads(asked[0].content) == {"action_name": "pg-list-queries"}


@pytest.mark.parametrize("answer", [CONFLICT, (200, {"ok": 0, "result": None}), (201, {"ok": 1, "result": None})])
def test_an_action_that_is_not_done_fails_the_tour_and_is_shown(
    answer: Answer, capsys: pytest.CaptureFixture[str]
) -> None:
    guide, _ = guided(OK, answer)
    guide.done("First.", "ad-pg", "list-extensions")
    with pytest.raises(TourFailed, match=r'^the tour failed at step 2, "Second.": the action was to be done'):
        guide.done("Second.", "ad-pg", "list-extensions")
    assert f"\n     {answer[0]} " in capsys.readouterr().out
    assert guide.actions == 1


def test_another_result_fails_the_tour() -> None:
    guide, _ = guided((200, {"ok": 1, "result": "ANSI"}))
    with pytest.raises(TourFailed, match="the result is another"):
        guide.done("Mode.", "ad-my", "get-sqlmode", where=lambda mode: mode == "STRICT_TRANS_TABLES")
    assert guide.actions == 0


def test_a_read_is_repeated_until_it_shows_what_was_begun(capsys: pytest.CaptureFixture[str]) -> None:
    guide, asked = guided(*((200, {"ok": 1, "result": rows}) for rows in ([], [], ["it"])))
    seen = guide.done_when_seen("Look.", "ad-pg", "pg-list-queries", where=lambda rows: rows == ["it"])
    assert (seen, len(asked), guide.actions) == (["it"], 3, 1)
    assert capsys.readouterr().out.count("200 OK") == 1


def test_a_read_that_never_shows_it_fails_the_tour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guides, "SHOWS_WITHIN_SECONDS", 1)
    guide, asked = guided((200, {"ok": 1, "result": []}))
    with pytest.raises(TourFailed, match="the result is another"):
        guide.done_when_seen("Look.", "ad-pg", "pg-list-queries", where=bool)
    assert len(asked) > 1


def test_a_read_that_is_refused_is_not_repeated() -> None:
    guide, asked = guided(CONFLICT)
    with pytest.raises(TourFailed, match="the action was to be done"):
        guide.done_when_seen("Look.", "ad-pg", "pg-list-queries", where=bool)
    assert len(asked) == 1


def test_a_refusal_is_counted_and_gives_its_text() -> None:
    guide, _ = guided(CONFLICT)
    why = guide.refused("No.", "ad-pg", "pg-cancel-query", {"pid": 1}, status=409, code="conflict")
    assert (why, guide.actions, guide.refusals) == ("not now", 0, 1)


@pytest.mark.parametrize(
    "answer",
    [OK, (409, {"ok": 0, "error": "", "code": "precondition"}), (404, {"ok": 0, "error": "", "code": "conflict"})],
)
def test_another_answer_than_the_refusal_fails_the_tour(answer: Answer) -> None:
    guide, _ = guided(answer)
    with pytest.raises(TourFailed, match="it was to be refused with 409 and conflict"):
        guide.refused("No.", "ad-pg", "pg-cancel-query", {"pid": 1}, status=409, code="conflict")
    assert guide.refusals == 0


def test_who_has_no_token_sends_none() -> None:
    guide, asked = guided((401, {"error": "a token is needed", "code": "unauthenticated"}), OK)
    guide.refused_without_token("No.", "/api/databases")
    assert "Authorization" not in asked[0].headers
    assert guide.refusals == 1
    with pytest.raises(TourFailed):
        guide.refused_without_token("No.", "/api/databases")


def test_of_a_resource_a_part_is_shown_and_the_whole_is_judged(capsys: pytest.CaptureFixture[str]) -> None:
    guide, _ = guided((200, {"a": "shown", "b": "hidden"}))
    body = guide.read("Look.", "/x", where=lambda body: body["b"] == "hidden", part=lambda body: body["a"], part_is="a")
    assert body == {"a": "shown", "b": "hidden"}
    shown = capsys.readouterr().out
    assert "; shown: a)" in shown
    assert '"shown"' in shown
    assert "hidden" not in shown
    with pytest.raises(TourFailed):
        guide.read("Look.", "/x", where=lambda body: body["b"] == "seen")


@pytest.mark.parametrize("status", [404, 503])
def test_a_resource_that_is_not_there_fails_the_tour_with_its_body(
    status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    guide, _ = guided((status, {"error": "gone", "code": "x"}))
    with pytest.raises(TourFailed):
        guide.read("Look.", "/x", where=lambda _: True, part=lambda body: body["a"])
    assert '"gone"' in capsys.readouterr().out


def test_what_the_application_does_not_see_fails_the_tour(capsys: pytest.CaptureFixture[str]) -> None:
    guide, _ = guided(OK)
    guide.done("Delete.", "ad-my", "delete-database", {"database_name": "x"})
    guide.check(True, "it is gone")
    assert "     = it is gone\n" in capsys.readouterr().out
    with pytest.raises(TourFailed, match=r'step 1, "Delete.": this is not so: "it is gone"'):
        guide.check(False, "it is gone")
    assert "it is gone" not in capsys.readouterr().out


BEGUN = (201, {"database_backup": {"id": "b1", "operation_id": "o1"}})
RESTORING = (201, {"id": "o2", "operation_id": "o2"})
AD_PG = Deployment(id="ad-pg", engine="postgresql", title="PostgreSQL", port=1, url="", password="")


def operation(status: str, *, over: bool = True) -> Answer:
    fields = {"id": "o1", "type": "backup", "status": status, "progress": 50, "error": None, "step": "", "notes": []}
    return 200, {"operation": {**fields, "finished_at": "2026-01-31T08:00:00Z" if over else None}}


FINISHED = operation("finished")


def test_what_outlives_its_request_is_waited_for_and_shown_once(capsys: pytest.CaptureFixture[str]) -> None:
    guide, asked = guided(BEGUN, operation("pending", over=False), operation("running", over=False), FINISHED)
    assert guide.begun("Begin.", "/api/databases/ad-pg/backups") == BEGUN[1]
    guide.ended("End.", "/api/databases/ad-pg/operations/o1")
    assert [(each.method, each.url.path) for each in asked] == [
        ("POST", "/api/databases/ad-pg/backups"),
        *[("GET", "/api/databases/ad-pg/operations/o1")] * 3,
    ]
    assert asked[0].content == b""
    shown = capsys.readouterr().out
    assert '"status": "finished"' in shown
    assert "pending" not in shown


@pytest.mark.parametrize("answer", [operation("error"), operation("cancelled"), (404, {"error": "", "code": "x"})])
def test_an_operation_with_another_end_fails_the_tour(answer: Answer) -> None:
    guide, _ = guided(answer)
    with pytest.raises(TourFailed, match="the operation was to be finished"):
        guide.ended("End.", "/x")


def test_an_operation_without_an_end_fails_the_tour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guides, "ENDS_WITHIN_SECONDS", 0.1)
    guide, _ = guided(operation("running", over=False))
    with pytest.raises(TourFailed, match="the operation was to be finished"):
        guide.ended("End.", "/x")


NO_PROGRAMS = (409, {"ok": 0, "error": "mariadb-dump is not on PATH.", "code": "precondition"})


def test_missing_programs_are_a_refusal_where_they_may_be_missing() -> None:
    guide, _ = guided(NO_PROGRAMS)
    assert guide.begun("Begin.", "/x", may_lack_programs=True) is None
    assert guide.refusals == 1
    with pytest.raises(TourFailed, match="it was to begin"):
        guide.begun("Begin.", "/x")


@pytest.mark.parametrize("answer", [CONFLICT, (200, {}), (503, {"code": "precondition"})])
def test_what_does_not_begin_fails_the_tour(answer: Answer) -> None:
    guide, _ = guided(answer)
    with pytest.raises(TourFailed, match="it was to begin"):
        guide.begun("Begin.", "/x", may_lack_programs=True)


def test_data_is_lost_and_has_to_come_back_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    guide, asked = guided(BEGUN, FINISHED, RESTORING, FINISHED)
    seen = iter(["2 rows", "none", "none", "2 rows"])
    lost = list[str]()
    bring_back(guide, AD_PG, content=lambda: next(seen), lose=lambda: lost.append("all"))
    assert (lost, guide.brought_back) == (["all"], 1)
    assert [each.url.path for each in asked] == [
        "/api/databases/ad-pg/backups",
        "/api/databases/ad-pg/operations/o1",
        "/api/databases/ad-pg/backups/b1/restore",
        "/api/databases/ad-pg/operations/o2",
    ]
    shown = capsys.readouterr().out
    assert "= the application loses data by mistake: 2 rows before, none now\n" in shown
    assert "= the application has its data again: 2 rows\n" in shown


def test_other_data_than_before_fails_the_tour() -> None:
    guide, _ = guided(BEGUN, FINISHED, RESTORING, FINISHED)
    seen = iter(["2 rows", "none", "none", "1 row"])
    with pytest.raises(TourFailed, match="has its data again"):
        bring_back(guide, AD_PG, content=lambda: next(seen), lose=list)
    assert guide.brought_back == 0


def test_a_loss_that_nobody_sees_fails_the_tour() -> None:
    guide, _ = guided(BEGUN, FINISHED, RESTORING, FINISHED)
    with pytest.raises(TourFailed, match="loses data by mistake"):
        bring_back(guide, AD_PG, content=lambda: "2 rows", lose=list)


def test_nothing_is_lost_where_no_backup_can_be_made() -> None:
    guide, _ = guided(NO_PROGRAMS)
    lost = list[str]()
    bring_back(guide, AD_PG, content=lambda: "2 rows", lose=lambda: lost.append("all"))
    assert (lost, guide.brought_back) == ([], 0)


def test_an_answer_that_is_not_json_fails_the_tour() -> None:
    guide, _ = guided((502, b"<html>"))
    with pytest.raises(TourFailed, match="the answer is not JSON"):
        guide.done("Look.", "ad-pg", "list-extensions")


def test_no_answer_fails_the_tour() -> None:
    guide = Guide(httpx.Client(base_url="http://127.0.0.1:1", headers={"Authorization": "Bearer t"}), Screen())
    asks: list[Callable[[], Any]] = [
        lambda: guide.done("Look.", "ad-pg", "list-extensions"),
        lambda: guide.read("Look.", "/x", where=bool),
    ]
    for ask in asks:
        with pytest.raises(TourFailed, match="dbvalet does not answer: ConnectError"):
            ask()
