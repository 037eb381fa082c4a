"""The platform ring (`/v1`) as clients walk through it, and the tokens that must not get anybody in."""

import asyncio
import base64
import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from fastapi.routing import APIRoute

from agent.api.platform import as_clients_write
from agent.app import create_app
from agent.errors import SettingsError
from agent.platform import signed_tokens, signing_keys
from agent.platform.signing_keys import Key, SigningKeys
from tests.fakes import BARE, ENGINE
from tests.fakes.service import TOKENS, URL, Valet, configuration, running, settings_of, until

ONE, TWO = "/api/databases/ad-one", "/api/databases/ad-two"
ADDON = "/v1/apps/app/addons/ad-one"


async def exchanged(valet: Valet, token: str = "admin") -> str:
    basic = base64.b64encode(f":{TOKENS[token]}".encode()).decode()
    answer = await valet.client.post("/v1/tokens/exchange", headers={"Authorization": f"Basic {basic}"})
    assert answer.status_code == 200, answer.text
    (value,) = answer.json().values()  # one client takes the only value there is
    return value


async def status(valet: Valet, token: str, path: str = ONE) -> int:
    return (await valet.client.get(path, headers={"Authorization": f"Bearer {token}"})).status_code


async def test_go_reads_the_token_and_the_database_api_takes_it(valet: Valet) -> None:
    token = await exchanged(valet)
    head, body, _ = token.split(".")
    header, claims = (json.loads(base64.urlsafe_b64decode(part + "==")) for part in (head, body))
    assert header["alg"] == "HS256"
    assert type(claims["exp"]) is int
    assert claims["exp"] > time.time() + 300  # with less, Go asks for another
    assert TOKENS["admin"] not in str(claims)
    assert await status(valet, token) == 200
    assert await status(valet, token, "/v1/users/self") == 200
    acted = await valet.client.post(
        f"{ONE}/action", headers={"Authorization": f"Bearer {token}"}, json={"action_name": "list-things"}
    )
    assert acted.status_code == 200


async def test_a_short_lived_token_may_do_what_its_static_one_may(valet: Valet) -> None:
    token = await exchanged(valet, "reader")
    refused = await valet.client.patch(ONE, headers={"Authorization": f"Bearer {token}"}, json={"database": {}})
    assert refused.status_code == 403
    assert await status(valet, await exchanged(valet, "of-two")) == 404
    assert await status(valet, await exchanged(valet, "of-two"), TWO) == 200


async def test_an_addon_token_is_good_for_its_database_alone(valet: Valet) -> None:
    answer = await valet.ask("POST", f"{ADDON}/token", json={})
    assert answer.status_code == 200  # with 201 the command-line client fails
    assert list(answer.json()) == ["addon"]
    token = answer.json()["addon"]["token"]
    assert await status(valet, token) == 200
    assert await status(valet, token, TWO) == 404
    assert await status(valet, token, "/v1/apps/app/addons/ad-two") == 404
    assert (await valet.ask("POST", f"{ADDON}/token", "of-two")).status_code == 404


async def test_what_clients_read_of_an_addon_is_there(valet: Valet) -> None:
    (one, two) = (await valet.ask("GET", "/v1/apps/app/addons")).json()["addons"]
    assert (one["id"], two["id"]) == ("ad-one", "ad-two")
    assert one["plan"]["name"] == "self-hosted"
    assert one["addon_provider"] == {"id": "fake", "name": "Fake"}
    assert (await valet.ask("GET", ADDON)).json()["addon"] == one
    assert (await valet.ask("GET", f"/v1/apps/{one['app_id']}")).json()["app"]["name"] == "app"
    assert (await valet.ask("GET", "/v1/apps/app")).json()["app"]["flags"] == {}
    plans = (await valet.ask("GET", "/v1/addon_providers/fake/plans?show_all=false")).json()["plans"]
    assert plans == [one["plan"]]
    assert [each["id"] for each in (await valet.ask("GET", "/v1/databases", "of-two")).json()["databases"]] == [
        "ad-two"
    ]


async def test_variables_hold_no_secret(valet: Valet) -> None:
    answer = await valet.ask("GET", "/v1/apps/app/variables?aliases=false")
    assert [each["value"] for each in answer.json()["variables"]] == ["fake://db.example:1234/app"] * 2
    assert "planted" not in answer.text
    assert "valet" not in answer.text


async def test_variables_hold_the_account_of_applications_where_it_is_declared_and_not_for_readers() -> None:
    shared = "fake://shop:of-the-shop@db.example:1234/app"
    one, two = configuration()["databases"]
    async with running(databases=[{**one, "application_url": shared}, {**two, "app_name": "other"}]) as valet:
        values: dict[str, list[str]] = {}
        for token in ("admin", "operator", "reader"):
            answer = await valet.ask("GET", "/v1/apps/app/variables", token)
            values[token] = [each["value"] for each in answer.json()["variables"]]
        assert values == {
            "admin": [shared],
            "operator": [shared],
            "reader": ["fake://db.example:1234/app"],
        }
        assert "of-the-shop" not in valet.log.getvalue().decode()
        assert [line["who"] for line in valet.lines("credentials_shown")] == ["admin", "operator"]


@pytest.mark.parametrize(
    ("of_token", "of_database", "is_shown"),
    [
        ({"allow": ["read-credentials"]}, {}, True),
        ({"allow": ["create-backup"]}, {}, False),
        ({"deny": ["read-credentials"]}, {}, False),
        ({}, {"disabled_actions": ["read-credentials"]}, False),
    ],
)
async def test_the_account_of_applications_can_be_kept_from_a_token_or_from_all(
    of_token: dict[str, Any], of_database: dict[str, Any], *, is_shown: bool
) -> None:
    shared = "fake://shop:of-the-shop@db.example:1234/app"
    one, two = configuration()["databases"]
    tokens = configuration()["tokens"]
    tokens[0] |= of_token
    databases = [{**one, "application_url": shared, **of_database}, {**two, "app_name": "other"}]
    async with running(databases=databases, tokens=tokens) as valet:
        answer = await valet.ask("GET", "/v1/apps/app/variables")
        value = shared if is_shown else "fake://db.example:1234/app"
        assert [each["value"] for each in answer.json()["variables"]] == [value]


@pytest.mark.parametrize(
    ("declared", "shown"),
    [
        ("postgres://a:b@db/app", "postgresql://a:b@db/app"),
        ("postgresql://a:b@db/app", "postgresql://a:b@db/app"),
        ("mariadb://a:b@db/app", "mysql://a:b@db/app"),
        ("mongodb://a:b@one,two/app?replicaSet=rs", "mongodb://a:b@one,two/app?replicaSet=rs"),
        ("influxdb://a:b@db/app", "http://a:b@db/app"),
        ("https+influxdb://a:b@db/app", "https://a:b@db/app"),
    ],
)
def test_a_variable_has_the_scheme_that_clients_look_for(declared: str, shown: str) -> None:
    assert as_clients_write(declared) == shown


@pytest.mark.parametrize("url", ["other://db.example/app", "fake", ""])
def test_the_url_of_applications_is_one_of_the_same_engine(url: str, tmp_path: Path) -> None:
    one, two = configuration()["databases"]
    with pytest.raises(SettingsError, match="application_url"):
        create_app(
            settings_of(configuration(databases=[{**one, "application_url": url}, two]), tmp_path),
            engines={ENGINE.name: ENGINE, BARE.name: BARE},
        )


async def test_a_region_is_told_before_anybody_has_a_token() -> None:
    async with running(public_url="https://valet.example") as valet:
        (region,) = (await valet.client.get("/v1/regions")).json()["regions"]
        assert region["default"] is True
        assert region["api"] == region["database_api"] == "https://valet.example"


async def test_services_of_one_process_share_what_was_read_of_the_routes_and_answer_for_themselves() -> None:
    async with running() as one, running(engines={ENGINE.name: ENGINE, BARE.name: BARE}, metrics="public") as other:
        told: list[set[str]] = []
        for valet in (one, other, one):
            answer = await valet.client.get("/v1/addon_providers")
            told.append({each["id"] for each in answer.json()["addon_providers"]})
        assert told == [{"fake"}, {"fake", "bare"}, {"fake"}]
        open_to = [(await valet.client.get("/metrics")).status_code for valet in (one, other)]
        assert open_to == [401, 200]
        # FastAPI takes long to read them.
        async with running() as third:
            read = [
                {id(each.dependant) for each in valet.app.routes if isinstance(each, APIRoute)}
                for valet in (one, third)
            ]
            assert read[0] == read[1] != set()
            assert not {*map(id, third.app.routes)} & {*map(id, one.app.routes)}, (
                "what is done to one is done to it alone"
            )


async def test_whoever_holds_the_token_is_shown_without_what_makes_clients_ask_for_consent(valet: Valet) -> None:
    user = (await valet.ask("GET", "/v1/users/self")).json()["user"]
    assert user["username"] == "admin"
    assert "admin" not in user["flags"]


async def test_tokens_that_were_changed_are_refused_in_one_form(valet: Valet) -> None:
    good = await exchanged(valet)
    head, body, signature = good.split(".")
    (key,) = valet.service.tokens._signed._keys._keys
    claims = jwt.decode(good, key.secret, ["HS256"])
    header = {"kid": key.id}

    def signed(secret: str = key.secret, algorithm: str = "HS256", **changes: Any) -> str:
        whole = {name: value for name, value in {**claims, **changes}.items() if value is not None}
        return jwt.encode(whole, secret, algorithm, headers=header)

    none = base64.urlsafe_b64encode(json.dumps({"alg": "none", "kid": key.id}).encode()).decode().rstrip("=")
    other_body = base64.urlsafe_b64encode(json.dumps({**claims, "sub": "reader"}).encode()).decode().rstrip("=")
    bad = {
        "changed claims": f"{head}.{other_body}.{signature}",
        "changed signature": f"{head}.{body}.{'A' * len(signature)}",
        "no signature": f"{head}.{body}.",
        "alg none": f"{none}.{body}.",
        "alg none, signed": f"{none}.{body}.{signature}",
        "another algorithm": signed(algorithm="HS512"),
        "another key": signed("x" * 64),
        "expired": signed(exp=int(time.time()) - 1),
        "without exp": signed(exp=None),
        "of nobody": signed(sub="nobody"),
        "of a token that was changed": signed(tok="0" * 16),
        "another issuer": signed(iss="another"),
        "not even one": "a.b.c",
        "not ASCII": "ä.b.c".encode().decode("latin-1"),
    }
    assert await status(valet, signed()) == 200
    unknown = await valet.client.get(ONE, headers={"Authorization": "Bearer unknown"})
    for what, token in bad.items():
        refused = await valet.client.get(ONE, headers={b"Authorization": f"Bearer {token}".encode("latin-1")})
        assert (refused.status_code, refused.json()) == (401, unknown.json()), what


async def test_tokens_of_another_deployment_and_of_a_token_that_is_gone_are_refused(tmp_path: Path) -> None:
    state = f"sqlite:///{tmp_path}/state.db"
    async with running(state=state) as valet, running() as other:
        token = await exchanged(valet)
        await exchanged(other)
        assert await status(other, token) == 401
    assert (tmp_path / "state.db").stat().st_mode & 0o777 == 0o600
    async with running(state=state) as valet:
        await valet.service.tokens._signed._keys.read()
        assert await status(valet, token) == 200  # a restart keeps the keys
    tokens = [each for each in configuration()["tokens"] if each["name"] != "admin"]
    async with running(state=state, tokens=tokens) as valet:
        await valet.service.tokens._signed._keys.read()
        assert await status(valet, token) == 401


async def set_age(keys: SigningKeys, seconds: int) -> None:
    """Make every key that many seconds old, in the state."""
    made_at = int(time.time()) - seconds
    await keys._memory.remember(
        signing_keys.MEMORY, [{"id": each.id, "secret": each.secret, "made_at": made_at} for each in keys._keys]
    )
    await keys.read()


async def test_no_short_lived_token_can_prolong_itself(valet: Valet, monkeypatch: pytest.MonkeyPatch) -> None:
    first = await exchanged(valet)
    ends = claims_of(first)["exp"]
    later = time.time() + 1800
    monkeypatch.setattr(time, "time", lambda: later)
    asked = await valet.client.post(f"{ADDON}/token", headers={"Authorization": f"Bearer {first}"})
    second = asked.json()["addon"]["token"]
    assert claims_of(second)["exp"] == ends
    again = await valet.client.post(f"{ADDON}/token", headers={"Authorization": f"Bearer {second}"})
    assert claims_of(again.json()["addon"]["token"])["exp"] == ends
    static = await valet.ask("POST", f"{ADDON}/token")
    assert claims_of(static.json()["addon"]["token"])["exp"] == int(later) + signing_keys.LIFETIME_SECONDS


def claims_of(token: str) -> dict[str, Any]:
    return jwt.decode(token, "", ["HS256"], options={"verify_signature": False})


async def test_a_token_that_was_verified_is_refused_once_it_expires_or_its_key_is_gone(valet: Valet) -> None:
    tokens = valet.service.tokens
    token, soon = await exchanged(valet), int(time.time()) + 2
    short = await tokens._signed.sign("admin", claims_of(token)["tok"], until=soon)
    assert (await status(valet, token), await status(valet, short)) == (200, 200)
    await asyncio.sleep(soon - time.time() + 0.01)
    assert (await status(valet, token), await status(valet, short)) == (200, 401)
    tokens._signed._keys._keys = []
    assert await status(valet, token) == 401


async def test_tokens_that_were_verified_are_remembered_up_to_a_number(
    valet: Valet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signed_tokens, "REMEMBERED", 2)
    tokens = valet.service.tokens
    key = await tokens._signed._keys.signing()
    claims = claims_of(await exchanged(valet))
    for number in range(4):
        token = jwt.encode({**claims, "jti": str(number)}, key.secret, "HS256", headers={"kid": key.id})
        assert await status(valet, token) == 200
        assert await status(valet, token) == 200
    assert [each["jti"] for each in tokens._signed._verified.values()] == ["2", "3"]


async def test_a_token_of_a_dbvalet_whose_clock_is_ahead_is_taken(valet: Valet) -> None:
    claims = claims_of(await exchanged(valet))
    key = await valet.service.tokens._signed._keys.signing()
    ahead = jwt.encode({**claims, "iat": int(time.time()) + 60}, key.secret, "HS256", headers={"kid": key.id})
    assert await status(valet, ahead) == 200


async def test_an_addon_token_ends_with_its_static_ones_right_to_the_database(tmp_path: Path) -> None:
    state = f"sqlite:///{tmp_path}/state.db"
    of_two = next(each for each in configuration()["tokens"] if each["name"] == "of-two")
    both = [{**of_two, "databases": ["ad-one", "ad-two"]}]
    async with running(state=state, tokens=both) as valet:
        answer = await valet.ask("POST", f"{ADDON}/token", "of-two")
        token = answer.json()["addon"]["token"]
        assert await status(valet, token) == 200
    async with running(state=state, tokens=[of_two]) as valet:
        await valet.service.tokens._signed._keys.read()
        assert await status(valet, token) == 404


async def test_the_keys_are_followed_and_rotated_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signing_keys, "LOOK_SECONDS", 0.02)
    state = f"sqlite:///{tmp_path}/state.db"
    async with running(state=state) as valet, running(state=state) as other:
        token = await exchanged(valet)
        await until(lambda: other.service.tokens._signed._keys._keys != [])
        assert await status(other, token) == 200  # what one has made, the other has read
        keys = valet.service.tokens._signed._keys
        await set_age(keys, signing_keys.ROTATE_SECONDS - 60)
        await asyncio.sleep(0.1)
        assert len(keys._keys) == 1
        await set_age(keys, signing_keys.ROTATE_SECONDS + 60)
        await until(lambda: len(keys._keys) == 2)
        await asyncio.sleep(0.1)
        assert len(keys._keys) == 2


async def test_plans_of_what_a_token_does_not_see_are_not_told() -> None:
    databases = [{"id": "ad-one", "url": URL, "plan": "large"}, {"id": "ad-two", "url": URL, "plan": "small"}]
    async with running(databases=databases) as valet:
        plans = {
            token: await valet.ask("GET", "/v1/addon_providers/fake/plans", token) for token in ("admin", "of-two")
        }
        names = {token: [each["name"] for each in answer.json()["plans"]] for token, answer in plans.items()}
        assert names == {"admin": ["large", "small"], "of-two": ["small"]}


async def test_of_several_that_rotate_keys_in_time_one_does(valet: Valet) -> None:
    keys = valet.service.tokens._signed._keys
    assert len(valet.lines("signing_key_rotated")) == 0
    await keys.signing()
    await keys.rotate()
    first = [each.id for each in keys._keys]
    await keys.rotate(older_than=3600)
    assert [each.id for each in keys._keys] == first
    assert len(valet.lines("signing_key_rotated")) == 1


async def test_keys_are_rotated_with_overlap(valet: Valet, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = valet.service.tokens._signed._keys
    first = await exchanged(valet)
    await set_age(keys, 3600)
    await keys.rotate()
    assert len(keys._keys) == 2
    second = await exchanged(valet)
    old, new = keys._keys
    assert jwt.get_unverified_header(second)["kid"] == old.id  # the others have not read the new one yet
    monkeypatch.setattr(signing_keys, "SPREAD_SECONDS", -1)
    third = await exchanged(valet)
    assert jwt.get_unverified_header(third)["kid"] == (await keys.signing()).id
    for token in (first, second, third):
        assert await status(valet, token) == 200
    long_ago = int(time.time()) - 10_000
    keys._keys = [
        Key(id=old.id, secret=old.secret, made_at=long_ago),
        Key(id=new.id, secret=new.secret, made_at=long_ago + 1),
    ]
    await keys._memory.remember(signing_keys.MEMORY, [vars(each) for each in keys._keys])
    await keys.rotate()
    assert old.id not in [each.id for each in keys._keys]


async def test_provisioning_consoles_and_logins_are_refused_readably(valet: Valet) -> None:
    for method, path in (
        ("POST", "/v1/apps/app/run"),
        ("POST", "/v1/apps/app/addons"),
        ("PATCH", ADDON),
        ("PUT", ADDON),
        ("DELETE", ADDON),
        ("POST", "/v1/tokens"),
        ("POST", "/v1/databases"),
    ):
        refused = await valet.ask(method, path, json={})
        assert refused.status_code == 400, path
        assert refused.json()["error"], path


async def test_applications_are_told_apart_by_what_a_token_sees() -> None:
    databases = [{"id": "ad-one", "url": URL, "app_name": "shop"}, {"id": "ad-two", "url": URL, "app_name": "blog"}]
    async with running(databases=databases) as valet:
        assert (await valet.ask("GET", "/v1/apps/shop", "of-two")).status_code == 404
        assert [each["id"] for each in (await valet.ask("GET", "/v1/apps/blog/addons", "of-two")).json()["addons"]] == [
            "ad-two"
        ]


async def test_each_database_of_the_list_is_found_as_an_application_of_its_name(valet: Valet) -> None:
    for listed in (await valet.ask("GET", "/v1/databases")).json()["databases"]:
        (addon,) = (await valet.ask("GET", f"/v1/apps/{listed['name']}/addons")).json()["addons"]
        assert addon["id"] == listed["id"]
        assert (await valet.ask("GET", f"/v1/apps/{listed['name']}")).status_code == 200
        token = await valet.ask("POST", f"/v1/apps/{listed['name']}/addons/{addon['id']}/token")
        assert token.status_code == 200
    assert (await valet.ask("GET", "/v1/apps/ad-one/addons", "of-two")).status_code == 404


async def test_pages_of_declared_origins_may_call_and_no_others() -> None:
    page = {"Origin": "https://console.example"}
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    async with running(cors_origins=[page["Origin"]]) as valet:
        preflight = await valet.client.options(f"{ONE}/action", headers={**page, **asked})
        assert preflight.status_code == 200
        assert preflight.headers["Access-Control-Allow-Origin"] == page["Origin"]
        assert "authorization" in preflight.headers["Access-Control-Allow-Headers"].lower()
        answer = await valet.ask("GET", ONE, headers=page)
        refused = await valet.ask("GET", ONE, None, headers=page)
        acted = await valet.ask("POST", f"{ONE}/action", headers=page, json={"action_name": "list-things"})
        for each, code in ((answer, 200), (refused, 401), (acted, 200)):
            assert (each.status_code, each.headers["Access-Control-Allow-Origin"]) == (code, page["Origin"])
        other = await valet.ask("GET", ONE, headers={"Origin": "https://evil.example"})
        assert "Access-Control-Allow-Origin" not in other.headers
        assert (await valet.client.options(ONE, headers={**asked, "Origin": "https://evil.example"})).status_code == 400


async def test_by_default_no_page_may_call(valet: Valet) -> None:
    answer = await valet.ask("GET", ONE, headers={"Origin": "https://console.example"})
    assert answer.status_code == 200
    assert "Access-Control-Allow-Origin" not in answer.headers
