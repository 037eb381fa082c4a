"""`dbvalet call` against a server that records what it is sent and answers as told."""

import json
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from agent.commands import call as module
from agent.commands.root import app
from agent.errors import AgentError, SettingsError

TOKEN = "a-token-of-the-tests"


@dataclass
class Told:
    """A stand-in for a dbvalet at the edge of the client."""

    url: str = ""
    status: int = 200
    answer: bytes = b'{"ok":1,"result":null}'
    requests: list[tuple[str, str, dict[str, str], Any]] = field(default_factory=list[Any])


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[Told]:
    told = Told()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            told.requests.append((self.command, self.path, headers, json.loads(body) if body else None))
            self.send_response(told.status)
            if told.status == 302:
                self.send_header("location", "/elsewhere")
            self.send_header("content-length", str(len(told.answer)))
            self.end_headers()
            self.wfile.write(told.answer)

        def do_POST(self) -> None:
            self.do_GET()

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        told.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setenv("DBVALET_URL", told.url)
        monkeypatch.setenv("DBVALET_TOKEN", TOKEN)
        monkeypatch.delenv("DBVALET_TOKEN_FILE", raising=False)
        yield told
        server.shutdown()
        thread.join()


def call(*words: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, ["call", *words], input=stdin)


def test_an_action_is_sent_as_the_documented_api_takes_it(told: Told) -> None:
    result = call("ad-pg", "pg-cancel-query", '{"pid": 2000}')
    ((method, path, headers, body),) = told.requests
    assert (method, path) == ("POST", "/api/databases/ad-pg/action")
    assert headers["authorization"] == f"Bearer {TOKEN}"
    assert headers["content-type"] == "application/json"
    assert body == {"action_name": "pg-cancel-query", "params": {"pid": 2000}}
    assert (result.exit_code, result.output) == (0, "ok\n")


def test_without_params_none_are_sent(told: Told) -> None:
    call("ad-pg", "pg-list-queries")
    assert told.requests[0][3] == {"action_name": "pg-list-queries"}


def test_params_come_from_standard_input_too(told: Told) -> None:
    call("ad-pg", "pg-cancel-query", "-", stdin='{"pid": 2000}\n')
    assert told.requests[0][3]["params"] == {"pid": 2000}


@pytest.mark.parametrize(
    ("words", "params"),
    [
        (["pg-cancel-query", "pid=2000"], {"pid": 2000}),
        (["create-database", "database_name=2000"], {"database_name": "2000"}),
        (["set-sqlmode", ""], ""),
        (["set-sqlmode", "ANSI"], "ANSI"),
        (
            ["add-retention-policy", "name=7", "duration=30d", "default=true"],
            {"name": "7", "duration": "30d", "default": True},
        ),
        (["unknown-here", "limit=5"], {"limit": 5}),
    ],
)
def test_words_are_typed_by_the_schema_of_the_action(told: Told, words: list[str], params: Any) -> None:
    assert call("ad-any", *words).exit_code == 0
    assert told.requests[0][3]["params"] == params


def test_params_that_are_neither_end_it_before_anything_is_sent(told: Told) -> None:
    result = call("ad-my", "create-database", "custom-db")
    assert result.exit_code == 2
    assert "'custom-db' is neither JSON nor KEY=VALUE. create-database takes: database_name." in result.output
    assert told.requests == []


def test_an_odd_database_id_cannot_leave_its_segment(told: Told) -> None:
    call("../../livez?x#y", "list-databases")
    assert told.requests[0][1] == "/api/databases/..%2F..%2Flivez%3Fx%23y/action"


def test_json_is_the_answer_as_it_came(told: Told) -> None:
    told.answer = b'{"ok":1,"result":[{"name":"b","n":1.50},{"name":"a"}]}'
    result = call("ad-my", "list-databases", "--json")
    assert (result.exit_code, result.stdout) == (0, told.answer.decode() + "\n")


def test_json_of_a_refusal_goes_to_standard_output_with_exit_code_1(told: Told) -> None:
    told.status, told.answer = 404, b'{"ok":0,"error":"There is none.","code":"not_found","resource":"database"}'
    result = call("ad-my", "list-databases", "--json")
    assert (result.exit_code, result.stdout, result.stderr) == (1, told.answer.decode() + "\n", "")


def test_a_refusal_is_said_with_what_its_code_means(told: Told) -> None:
    told.status = 403
    told.answer = b'{"ok":0,"error":"Missing: CREATE. Remedy: GRANT CREATE.","code":"privilege_missing"}'
    result = call("ad-my", "list-databases")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.splitlines() == [
        "dbvalet: Missing: CREATE. Remedy: GRANT CREATE.",
        "privilege_missing (403): The engine account lacks a privilege for this.",
    ]


def test_a_refusal_with_the_common_text_is_not_said_twice(told: Told) -> None:
    told.status, told.answer = 409, b'{"ok":0,"error":"This name is taken.","code":"already_exists"}'
    assert call("ad-my", "list-databases").stderr == "dbvalet: This name is taken.\nalready_exists (409)\n"


def test_a_refusal_cannot_move_the_cursor(told: Told) -> None:
    told.status, told.answer = 404, json.dumps({"error": "no \x1b[2J\n", "code": "\x1b[2J"}).encode()
    assert call("ad-my", "list-databases").stderr == "dbvalet: no \\x1b[2J\n\\x1b[2J (404)\n"


@pytest.mark.parametrize(
    ("result", "lines"),
    [
        (None, ["ok"]),
        ("ANSI,STRICT", ["ANSI,STRICT"]),
        ("", [""]),
        ("x" * 1000, ["x" * 1000]),
        (5, ["5"]),
        (False, ["no"]),
        ([], ["(none)"]),
        (["a", 2], ["a", "2"]),
        ({"name": "custom-db", "protected": False}, ["name       custom-db", "protected  no"]),
        (
            [{"pid": 7, "query_duration": 1_500_000_000}, {"pid": 8, "more": None}],
            [
                "pid  query duration  more",
                "─────────────────────────",
                "7    1.5 s           -",
                "8    -               -",
            ],
        ),
    ],
)
def test_a_result_is_written_for_people(told: Told, result: Any, lines: list[str]) -> None:
    told.answer = json.dumps({"ok": 1, "result": result}).encode()
    assert call("ad-pg", "anything").stdout.splitlines() == lines


def test_without_an_action_those_of_the_database_are_listed(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    wait = {"type": "object", "properties": {"pid": {}, "since": {}}, "required": ["pid"]}
    told.answer = json.dumps(
        {
            "actions": [
                {"name": "a", "effect": "read", "params_schema": {"type": "object"}, "available": True, "summary": "A."}
                | {"unavailable_reason": None},
                {"name": "b", "effect": "write", "params_schema": wait, "available": False, "summary": "B."}
                | {"unavailable_reason": "Missing: X."},
                {"name": "c", "effect": "write", "params_schema": {"type": "string"}, "available": True}
                | {"summary": "C.", "unavailable_reason": None},
            ]
        }
    ).encode()
    result = call("ad-pg")
    assert told.requests[0][:2] == ("GET", "/api/databases/ad-pg/actions")
    assert [line.split() for line in result.stdout.splitlines()[2:]] == [
        ["a", "read", "-", "yes", "A."],
        ["b", "write", "pid", "[since]", "no", "Missing:", "X."],
        ["c", "write", "STRING", "yes", "C."],
    ]


def refused(*words: str) -> AgentError:
    """What `main` turns into a line and an exit code."""
    result = call(*words)
    assert isinstance(result.exception, AgentError), result.output
    return result.exception


def test_no_dbvalet_is_one_line(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBVALET_URL", "http://127.0.0.1:1")
    problem = refused("ad-pg", "pg-list-queries")
    assert problem.message.startswith("no dbvalet answers at http://127.0.0.1:1: ")
    assert not isinstance(problem, SettingsError)


def test_one_that_never_answers_is_given_up(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.2)
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as silent:
        silent.socket.listen()
        monkeypatch.setenv("DBVALET_URL", f"http://127.0.0.1:{silent.server_port}")
        assert refused("ad-pg", "pg-list-queries").message.endswith("within 0.2 s")


@pytest.mark.parametrize(("status", "answer"), [(200, b"<html>"), (502, b"bad gateway"), (200, b"[]"), (404, b"{}")])
def test_an_answer_of_something_else_is_told_apart(told: Told, status: int, answer: bytes) -> None:
    told.status, told.answer = status, answer
    assert f"({status}) is none of a dbvalet" in refused("ad-pg", "pg-list-queries").message


def test_a_redirect_is_not_followed_with_the_token(told: Told) -> None:
    told.status, told.answer = 302, b""
    refused("ad-pg", "pg-list-queries")
    assert len(told.requests) == 1


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://x", "http://", ""])
def test_a_url_that_is_none_is_a_mistake(told: Told, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    problem = refused("ad-pg", "pg-list-queries", "--url", url)
    assert isinstance(problem, SettingsError)
    assert problem.key == "--url"


def test_a_slash_at_the_end_of_the_url_is_taken(told: Told) -> None:
    assert call("ad-pg", "pg-list-queries", "--url", f"{told.url}/").exit_code == 0
    assert told.requests[0][1] == "/api/databases/ad-pg/action"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost", "localhost.", "[::1]", "[::ffff:127.0.0.1]"])
def test_a_proxy_of_the_environment_does_not_see_what_goes_to_this_machine(
    told: Told, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setenv("HTTP_PROXY", told.url)
    monkeypatch.delenv("NO_PROXY", raising=False)
    # Nothing may listen there; what goes through the proxy is seen.
    call("ad-pg", "pg-list-queries", "--url", f"http://{host}:1")
    assert told.requests == []


def test_a_proxy_of_the_environment_is_asked_for_another_machine(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", told.url)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert call("ad-pg", "pg-list-queries", "--url", "http://dbvalet.example").exit_code == 0
    assert told.requests[0][1] == "http://dbvalet.example/api/databases/ad-pg/action"


def token_sent(told: Told, *words: str) -> str:
    result = call("ad-pg", "pg-list-queries", *words)
    assert result.exit_code == 0, result.output
    return told.requests[-1][2]["authorization"]


def test_the_token_is_that_of_the_option_then_of_the_file_then_of_the_variable(
    told: Told, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, content in (("option", "of-the-option\n"), ("variable", "of-the-file\r\n")):
        (tmp_path / name).write_bytes(content.encode())
    assert token_sent(told) == f"Bearer {TOKEN}"
    monkeypatch.setenv("DBVALET_TOKEN_FILE", str(tmp_path / "variable"))
    assert token_sent(told) == "Bearer of-the-file"
    assert token_sent(told, "--token-file", str(tmp_path / "option")) == "Bearer of-the-option"


def test_there_is_no_option_that_takes_a_token(told: Told) -> None:
    assert call("ad-pg", "pg-list-queries", "--token", TOKEN).exit_code == 2
    assert told.requests == []


@pytest.mark.parametrize("content", [b"", b"two\nlines\n", b"\xff\xfe", "schlüssel".encode(), b"a\x00b"])
def test_a_file_that_holds_no_token_is_a_mistake_that_quotes_nothing(
    told: Told, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "token").write_bytes(content)
    problem = refused("ad-pg", "pg-list-queries", "--token-file", str(tmp_path / "token"))
    assert isinstance(problem, SettingsError)
    with suppress(UnicodeDecodeError):
        assert content.decode().strip() == "" or content.decode().strip() not in problem.message
    assert told.requests == []


def test_without_a_token_it_says_where_one_is_looked_for(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DBVALET_TOKEN")
    assert refused("ad-pg", "pg-list-queries").message == (
        "--token-file: is needed, or DBVALET_TOKEN_FILE, or DBVALET_TOKEN"
    )


def test_a_dry_run_is_asked_for_and_shown_as_one(told: Told) -> None:
    objects = [{"change": "remove", "kind": "table", "name": "users", "rows": 500, "bytes": None}]
    preview = {
        "would": "Deletes it.",
        "objects": objects,
        "total": 7,
        "truncated": True,
        "sessions": 2,
        "keeps": ["the users"],
        "warnings": ["Who knows."],
    }
    told.answer = json.dumps({"ok": 1, "dry_run": True, "result": preview}).encode()
    result = call("ad-my", "delete-database", "database_name=x", "--dry-run")
    assert told.requests[0][3] == {
        "action_name": "delete-database",
        "params": {"database_name": "x"},
        "dry_run": True,
    }
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert lines[0] == "dry run: Deletes it."
    assert ["remove", "table", "users", "500"] in [line.split()[:4] for line in lines]
    assert lines[-5:] == [
        "and 6 more",
        "cuts 2 sessions",
        "keeps the users",
        "warning: Who knows.",
        "Nothing was changed.",
    ]


@pytest.mark.parametrize("options", [["--dry-run"], ["--page", "1"], ["--per-page", "1"], ["--key", "k"]])
def test_what_is_said_of_an_action_needs_one(told: Told, options: list[str]) -> None:
    assert call("ad-my", *options).exit_code == 2
    assert told.requests == []


def test_a_page_is_asked_for_and_its_place_shown(told: Told) -> None:
    place = {"current_page": 2, "total_pages": 3, "total_count": 41}
    told.answer = json.dumps({"ok": 1, "result": [{"name": "x"}], "meta": {"pagination": place}}).encode()
    result = call("ad-my", "list-databases", "--page", "2", "--per-page", "20")
    assert told.requests[0][3] == {"action_name": "list-databases", "page": 2, "per_page": 20}
    assert result.output.splitlines()[-1] == "page 2 of 3, 41 in all"


def test_a_key_is_sent_as_a_header(told: Told) -> None:
    call("ad-my", "list-databases", "--key", "of this one")
    call("ad-my", "list-databases")
    assert [headers.get("idempotency-key") for _, _, headers, _ in told.requests] == ["of this one", None]
