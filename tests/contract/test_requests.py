"""Ids, headers and tokens of all sorts."""

import httpx
import pytest

from tests.contract.decoders import go_failure
from tests.fakes.service import TOKENS, Valet

ONE = "/api/databases/ad-one"


@pytest.mark.parametrize(
    "written",
    ["ad-none", "AD-ONE", "ad-one ", "ad-one%20", "ad-one%00", "%61d-one%0a", "..", "%2e%2e", "ad-one%2f", "ad-one%2e",
     "%ff%fe", "%E2%80%8Bad-one", "ad%EF%BC%8Done", "'", "%22%3E%3Cscript%3E", "a" * 5000, "-", "%", "%zz", "*"],
)  # fmt: skip
@pytest.mark.parametrize("rest", ["", "/actions", "/action"])
async def test_a_hostile_id_is_a_404_that_does_not_repeat_it(valet: Valet, written: str, rest: str):
    method = "POST" if rest == "/action" else "GET"
    url = httpx.URL("http://dbvalet", raw_path=f"/api/databases/{written}{rest}".encode())
    response = await valet.client.request(
        method, url, headers={"Authorization": f"Bearer {TOKENS['admin']}"}, content=b'{"action_name":"list-things"}'
    )

    assert response.status_code == 404
    assert go_failure(response) in ("The database was not found", "The path was not found")
    assert len(response.content) < 200


async def test_a_percent_encoded_id_is_the_id(valet: Valet):
    url = httpx.URL("http://dbvalet", raw_path=b"/api/databases/%61d%2Done")
    response = await valet.client.get(url, headers={"Authorization": f"Bearer {TOKENS['admin']}"})

    assert response.json()["database"]["id"] == "ad-one"


@pytest.mark.parametrize("query", ["?", "?a=b", "?database_id=ad-two", "?" + "x" * 5000])
async def test_a_query_changes_nothing(valet: Valet, query: str):
    """The Go client ends its URLs with a bare question mark."""
    response = await valet.ask("GET", ONE + query)
    assert response.json()["database"]["id"] == "ad-one"


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer  ",
        TOKENS["admin"],
        f"Basic {TOKENS['admin']}",
        f"Bearer{TOKENS['admin']}",
        f"Bearer\t{TOKENS['admin']}",
        f"Bearer {TOKENS['admin']}x",
        f"Bearer {TOKENS['admin'][:-1]}",
        f"Bearer {TOKENS['admin'].upper()}",
        f"Bearer {TOKENS['admin']},",
        f"Bearer {TOKENS['admin']} {TOKENS['admin']}",
        f'Bearer "{TOKENS["admin"]}"',
        "Bearer tökén-of-the-admin-0123456789",
        "Bearer \x00",
        "Bearer " + "x" * 100_000,
    ],
)
async def test_whatever_is_not_the_token_is_401_with_one_text(valet: Valet, value: str):
    for method, path in (("GET", ONE), ("POST", ONE + "/action"), ("GET", "/metrics")):
        raw = [(b"Authorization", value.encode())]
        response = await valet.client.request(method, path, headers=raw, content=b"{")
        assert response.status_code == 401
        assert response.json() == {
            **({"ok": 0} if path.endswith("action") else {}),
            "error": "A valid token is needed: `Authorization: Bearer TOKEN`.",
            "code": "unauthenticated",
        }


@pytest.mark.parametrize("value", ["bearer {}", "BEARER {}", "Bearer   {}", "Bearer {}  "])
async def test_the_scheme_is_written_in_any_case_and_spaces_do_not_count(valet: Valet, value: str):
    response = await valet.client.get(ONE, headers={"Authorization": value.format(TOKENS["admin"])})
    assert response.status_code == 200


@pytest.mark.parametrize("others", [["Bearer wrong"], [f"Bearer {TOKENS['reader']}"], [f"Bearer {TOKENS['admin']}"]])
async def test_two_authorization_headers_are_none(valet: Valet, others: list[str]):
    """Which of them a proxy has checked is not known."""
    values = [f"Bearer {TOKENS['admin']}", *others]
    for order in (values, values[::-1]):
        raw = [(b"Authorization", value.encode()) for value in order]
        assert (await valet.client.get(ONE, headers=raw)).status_code == 401


@pytest.mark.parametrize("given", ["a", "A-b_c.9", "x" * 64])
async def test_a_usable_request_id_is_kept(valet: Valet, given: str):
    response = await valet.ask("POST", ONE + "/action", headers={"X-Request-Id": given}, content=b"{")

    assert response.headers.get_list("X-Request-Id") == [given]
    assert valet.lines("action")[0]["request_id"] == given


@pytest.mark.parametrize("given", ["", " ", "x" * 65, "a b", "a\tb", "ä", "a;b", "<script>", "a\x7fb"])
async def test_another_request_id_is_replaced(valet: Valet, given: str):
    response = await valet.ask("GET", ONE, headers=[("X-Request-Id", given.encode())])

    assert len(response.headers.get_list("X-Request-Id")) == 1
    assert len(response.headers["X-Request-Id"]) == 16
    assert response.headers["X-Request-Id"] != given


async def test_request_ids_differ(valet: Valet):
    ids = {(await valet.ask("GET", path)).headers["X-Request-Id"] for path in ("/livez", ONE, "/nothing", ONE) * 5}
    assert len(ids) == 20


@pytest.mark.parametrize("accept", ["text/html", "application/xml", "*/*", "image/png;q=0", "nonsense"])
async def test_failures_are_json_whatever_the_client_accepts(valet: Valet, accept: str):
    for path in (ONE, "/nothing", ONE + "/"):
        response = await valet.ask("GET", path, None, headers={"Accept": accept})
        assert response.headers["Content-Type"] == "application/json"
        assert go_failure(response)


@pytest.mark.parametrize(
    "header",
    [
        {"X-HTTP-Method-Override": "DELETE"},
        {"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Prefix": "/api"},
        {"Host": "evil.example:99999"},
        {"Range": "bytes=0-1"},
        {"If-None-Match": "*"},
        {"Content-Type": "multipart/form-data"},
        {"Content-Length": "12"},
        {"Cookie": "x" * 10_000},
        {"Origin": "https://evil.example"},
    ],
)
async def test_other_headers_change_nothing(valet: Valet, header: dict[str, str]):
    response = await valet.ask("GET", ONE, headers=header)

    assert response.status_code == 200
    assert "evil.example" not in response.text
    assert not [name for name in response.headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize("path", ["/api/databases/ad-one/backup_restorations/action", "/v1/apps/action", "/action"])
async def test_an_id_that_is_called_action_makes_no_failure_of_an_action(valet: Valet, path: str):
    response = await valet.ask("GET", path)
    assert response.status_code == 404
    assert "ok" not in response.json()
