"""What may stand in the body of an action, and what happens to everything else."""

import json
from typing import Any

import httpx
import pytest

from tests.contract.decoders import go_failure, javascript_action, javascript_failure
from tests.fakes.service import ABSENT, Valet

ACTION = "/api/databases/ad-one/action"
MIB = 1024 * 1024


async def send(valet: Valet, content: Any, **headers: str) -> httpx.Response:
    return await valet.ask("POST", ACTION, content=content, headers=headers)


@pytest.mark.parametrize("params", [ABSENT, None, {}], ids=["absent", "null", "empty"])
@pytest.mark.parametrize("action", ["list-things", "find-things"])
async def test_params_absent_null_and_empty_are_one_case(valet: Valet, action: str, params: Any):
    assert javascript_action(await valet.act(action, params)) == [{"name": "first", "colour": "blue"}]


@pytest.mark.parametrize("params", ["", 0, False, [], "x", [{}]])
async def test_another_empty_value_is_not_the_absence_of_params(valet: Valet, params: Any):
    response = await valet.act("list-things", params)

    assert response.status_code == 422
    assert go_failure(response).startswith("* params → ")


async def test_a_bare_string_is_params_where_the_action_says_so(valet: Valet):
    assert javascript_action(await valet.act("set-mode", "FAST")) is None
    assert javascript_action(await valet.act("set-mode", "")) is None
    assert valet.server().performed == ["set-mode FAST", "set-mode "]


@pytest.mark.parametrize("params", [ABSENT, None, {}, 5, ["FAST"]], ids=["absent", "null", "empty", "number", "list"])
async def test_what_is_no_string_is_refused_where_one_is_needed(valet: Valet, params: Any):
    assert (await valet.act("set-mode", params)).status_code == 422
    assert valet.server().performed == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b" ",
        b"{",
        b"nonsense",
        b"null",
        b"true",
        b'"list-things"',
        b'[{"action_name":"list-things"}]',
        b'{"action_name":"list-things"}{}',
        b"{'action_name':'list-things'}",
        b'{"action_name":"list-things",}',
        b'{"action_name":"list-things"} // and a comment',
        b'\xef\xbb\xbf{"action_name":"list-things"}',
        '{"action_name":"list-things"}'.encode("utf-16"),
        '{"action_name":"list-things"}'.encode("utf-32-be"),
        b'{"action_name":"\xff"}',
        b'{"action_name":"list-things","params":NaN}',
        b'{"action_name":"list-things","params":Infinity}',
        b'{"action_name":"list-things","params":1e999}',
        b'{"action_name":"find-things","params":{"colour":"\\ud800"}}',
        b'{"action_name":"find-things","params":{"\\udfff":"blue"}}',
        b'{"action_name":"list-things","params":' + b"[" * 2000 + b"]" * 2000 + b"}",
        b"[" * 500_000,
        b"\x00",
        b"action_name=list-things",
        b"--x\r\nContent-Disposition: form-data; name=action_name\r\n\r\nlist-things\r\n--x--",
        b"\x1f\x8b\x08\x00",
    ],
)
async def test_what_is_no_json_object_in_utf8_is_400(valet: Valet, content: bytes):
    response = await send(valet, content)

    assert (response.status_code, response.json()["code"]) == (400, "malformed")
    assert go_failure(response)
    assert len(response.content) < 300
    assert valet.server().performed == []


@pytest.mark.parametrize(
    ("envelope", "field"),
    [
        ({}, "action_name"),
        ({"action_name": None}, "action_name"),
        ({"action_name": 5}, "action_name"),
        ({"action_name": ["list-things"]}, "action_name"),
        ({"action_name": {"a": "b"}}, "action_name"),
        ({"action": "list-things"}, "action"),
        ({"action_name": "list-things", "extra": 1}, "extra"),
        ({"action_name": "list-things", "": 1}, ""),
        ({"action_name": "list-things", "Params": {}}, "Params"),
        ({"action_name": "add-thing", "params": {"name": 5}}, "name"),
        ({"action_name": "add-thing", "params": {"name": "x" * 21}}, "name"),
        ({"action_name": "add-thing", "params": {"name": "x", "colour": None}}, "colour"),
        ({"action_name": "add-thing", "params": {"name": "x", "size": 1}}, "size"),
        ({"action_name": "add-thing", "params": [1]}, "params"),
        ({"action_name": "set-mode", "params": 12345678901234567890123}, "params"),
    ],
)
async def test_a_wrong_field_is_422_and_is_named(valet: Valet, envelope: dict[str, Any], field: str):
    response = await send(valet, json.dumps(envelope))

    assert response.status_code == 422
    assert list(response.json()["errors"]) == [field] or field in response.json()["errors"]
    assert go_failure(response).startswith("* ")
    assert valet.server().performed == []


async def test_every_wrong_field_is_named_at_once(valet: Valet):
    response = await valet.act("add-thing", {"colour": 5, "size": 1})

    assert response.json()["errors"] == {
        "name": ["is required"],
        "colour": ["Input should be a valid string"],
        "size": ["is not known"],
    }
    assert javascript_failure(response) == (
        "name: is required; colour: Input should be a valid string; size: is not known"
    )


async def test_a_refusal_never_quotes_the_value(valet: Valet):
    response = await valet.act("add-thing", {"name": {"planted": "planted"}, "colour": ["planted"]})

    assert response.status_code == 422
    assert "planted" not in response.text


@pytest.mark.parametrize(
    "name", ["", "List-Things", "list-things ", "list_things", "\x00", "../list-things", "💥" * 9999]
)
async def test_an_action_is_found_by_its_exact_name_only(valet: Valet, name: str):
    response = await valet.act(name)

    assert (response.status_code, response.json()["code"]) == (404, "unknown_action")
    assert "list-things, odd-result" in response.json()["error"]
    assert len(response.content) < 500


async def test_of_a_key_that_stands_twice_the_last_counts(valet: Valet):
    """As in JSON.parse, Go and Python: what a proxy in between sees is what is done."""
    response = await send(valet, b'{"action_name":"drop-thing","action_name":"list-things"}')

    assert javascript_action(response)
    assert valet.server().performed == ["list-things"]


async def test_params_that_are_nested_too_deeply_are_refused(valet: Valet):
    def nested(levels: int) -> bytes:
        return b'{"action_name":"count-keys","params":' + b'{"a":' * levels + b"1" + b"}" * levels + b"}"

    assert javascript_action(await send(valet, nested(200))) == 1
    refused = await send(valet, nested(300))
    assert refused.status_code == 422
    assert refused.json()["errors"] == {"params": ["is nested too deeply"]}


async def test_text_of_any_script_goes_through_unchanged(valet: Valet):
    name = "żółw 🐢 \x00\u2028'\"`\\"
    added = await valet.act("add-thing", {"name": name})

    assert javascript_action(added)["name"] == name
    assert name in valet.server().things


def padded(size: int) -> bytes:
    body = b'{"action_name":"list-things"}'
    return body + b" " * (size - len(body))


@pytest.mark.parametrize(("size", "status"), [(MIB - 1, 200), (MIB, 200), (MIB + 1, 413), (3 * MIB, 413)])
async def test_a_body_may_have_one_mebibyte(valet: Valet, size: int, status: int):
    assert (await send(valet, padded(size))).status_code == status


@pytest.mark.parametrize(("size", "status"), [(MIB - 1, 200), (MIB, 200), (MIB + 1, 413), (3 * MIB, 413)])
async def test_a_body_in_chunks_of_unknown_length_has_the_same_limit(valet: Valet, size: int, status: int):
    content = padded(size)

    async def chunks():
        for start in range(0, size, 100_000):
            yield content[start : start + 100_000]

    response = await send(valet, chunks())
    assert "content-length" not in response.request.headers
    assert response.status_code == status


async def test_a_body_that_is_announced_as_too_large_is_refused_before_it_comes(valet: Valet):
    async def never():
        yield b"{"
        raise AssertionError("the rest of the body was asked for")

    for announced in (str(MIB + 1), "9" * 20, "9" * 5000):
        response = await send(valet, never(), **{"Content-Length": announced})
        assert response.status_code == 413


async def test_an_action_needs_no_content_type(valet: Valet):
    for content_type in ("application/json", "text/plain", "application/xml", "application/json; charset=latin-1", ""):
        response = await send(valet, b'{"action_name":"list-things"}', **{"Content-Type": content_type})
        assert response.status_code == 200


async def test_a_body_that_is_compressed_is_no_json(valet: Valet):
    import gzip

    packed = gzip.compress(b'{"action_name":"list-things"}')
    response = await send(valet, packed, **{"Content-Encoding": "gzip"})
    assert (response.status_code, response.json()["code"]) == (400, "malformed")


async def test_the_body_is_not_read_for_somebody_unknown(valet: Valet):
    async def never():
        raise AssertionError("the body was read")
        yield b""

    assert (await valet.ask("POST", ACTION, None, content=never())).status_code == 401
    assert (await valet.ask("POST", "/api/databases/ad-none/action", content=never())).status_code == 404


@pytest.mark.parametrize("path", ["/api/databases", "/api/databases/ad-one", "/livez", "/metrics"])
async def test_a_body_where_none_is_needed_is_not_read(valet: Valet, path: str):
    async def never():
        raise AssertionError("the body was read")
        yield b""

    assert (await valet.ask("GET", path, content=never())).status_code == 200
