"""The calls of the known clients are all there, and dbvalet answers them on the fake engine, where nothing is refused
for want of something on the server. `tests/live/test_client_contract.py` sends the same ones over the real engines."""

import httpx
import pytest

from tests.contract.client_calls import CALLS, DIFFERENCES, ENGINES, FAKE, Client, Token
from tests.contract.client_replay import HEADERS, Replay, known
from tests.contract.test_every_route import ROUTES
from tests.fakes.service import TOKENS, running

CONTRACT = """
POST   /v1/tokens/exchange                                              go js ruby
POST   /v1/tokens                                                       go
GET    /v1/regions                                                      go js
GET    /v1/users/self                                                   go js
POST   /v1/apps/{app}/addons/{addon}/token                              go ruby
GET    /v1/apps/{app}/addons                                            go js
GET    /v1/apps/{app}/addons/{addon}                                    go js
GET    /v1/apps/{app}                                                   go js
GET    /v1/apps/{app}/variables                                         go js
POST   /v1/apps/{app}/run                                               go
GET    /v1/addon_providers                                              go js
GET    /v1/addon_providers/{provider}/plans                             go
POST   /v1/apps/{app}/addons                                            go js
PATCH  /v1/apps/{app}/addons/{addon}                                    go js
PUT    /v1/apps/{app}/addons/{addon}                                    ruby
DELETE /v1/apps/{app}/addons/{addon}                                    go js
GET    /v1/databases                                                    go js
POST   /v1/databases                                                    go js documentation
GET    /api/databases/{database_id}                                     go js documentation
PATCH  /api/databases/{database_id}                                     go js documentation
PUT    /api/databases/{database_id}                                     documentation
POST   /api/databases/{database_id}/action                              js documentation
POST   /api/databases/{database_id}/pitr/restore                        go js documentation
GET    /api/databases/{database_id}/pitr/recovery_window                go
GET    /api/databases/{database_id}/operations/{operation_id}           js
POST   /api/databases/{database_id}/upgrade                             js ruby
GET    /api/databases/{database_id}/users                               go js documentation
POST   /api/databases/{database_id}/users                               go js documentation
PATCH  /api/databases/{database_id}/users/{user_name}                   go documentation
POST   /api/databases/{database_id}/users/{user_name}/reset_password    go js documentation
DELETE /api/databases/{database_id}/users/{user_name}                   go js documentation
GET    /api/databases/{database_id}/backups                             go js documentation
POST   /api/databases/{database_id}/backups                             go js documentation
GET    /api/backups/{backup_id}                                         go
GET    /api/databases/{database_id}/backups/{backup_id}                 js
GET    /api/databases/{database_id}/backups/{backup_id}/archive         go js documentation
GET    /api/backups/{backup_id}/download                                go js documentation
POST   /api/databases/{database_id}/backups/{backup_id}/restore         js
GET    /api/databases/{database_id}/backup_restorations/{restoration_id}        js
GET    /api/databases/{database_id}/maintenance                         go js
GET    /api/databases/{database_id}/maintenance/{maintenance_id}        go js documentation
POST   /api/databases/{database_id}/features                            go js
DELETE /api/databases/{database_id}/features                            go js
GET    /api/databases/{database_id}/logs                                go js documentation
GET    /api/logs/{log_id}                                               go
GET    /api/databases/{database_id}/logs_archives                       go js
GET    /api/databases/{database_id}/instances_status                    js
GET    /api/databases/{database_id}/metrics                             js documentation
GET    /api/databases/{database_id}/metrics/{kind}                      js
GET    /api/databases/{database_id}/instances/{instance_id}/metrics/{kind}      js
GET    /api/databases/{database_id}/health                              js documentation
GET    /api/databases/{database_id}/lag                                 js
POST   /api/databases/{database_id}/ping                                js
GET    /api/databases/{database_id}/plan                                js
GET    /api/plans/{name}                                                js
GET    /api/database_types                                              js
GET    /api/database_types/{type_id}                                    js
GET    /api/database_type_versions/{version_id}                         go js documentation
GET    /api/databases/{database_id}/firewall_rules                      go js
POST   /api/databases/{database_id}/firewall_rules                      go js
PATCH  /api/databases/{database_id}/firewall_rules/{rule_id}            js
DELETE /api/databases/{database_id}/firewall_rules/{rule_id}            go js
GET    /api/firewall/managed_ranges                                     go js
GET    /api/ca_certificate                                              js
"""
"""Every row of the contract with the clients, and who sends it."""

OURS = {
    ("GET", "/api/databases"): "an overview for people; clients list addons",
    ("GET", "/api/databases/{database_id}/actions"): "the catalogue of actions",
    ("GET", "/api/databases/{database_id}/operations"): "`dbvalet backups`",
    ("POST", "/api/databases/{database_id}/operations/{operation_id}/cancel"): "`dbvalet backups cancel`",
    ("DELETE", "/api/databases/{database_id}/backups/{backup_id}"): "`dbvalet backups delete`",
    ("GET", "/api/audit"): "what was changed, by whom",
}
"""Routes that no known client asks, and what they are for."""

SOCKETS = {
    ("WEBSOCKET", "/api/logs/{log_id}"): "the command-line client's `--follow`: tests/contract/test_followed_logs.py"
}
"""Routes that clients ask in another way than with a request, and where that is shown."""

ROWS = {
    (method, path, client)
    for method, path, *clients in (line.split() for line in CONTRACT.strip().splitlines())
    for client in clients
}


def test_every_row_of_the_contract_has_its_call_and_there_is_no_other() -> None:
    assert {(call.method, call.path, str(call.client)) for call in CALLS} == ROWS


def test_every_public_route_is_in_the_contract_or_said_to_be_our_own() -> None:
    public = {route for route in ROUTES if route[1].startswith(("/v1/", "/api/"))}
    asked = {(method, path) for method, path, _ in ROWS}
    assert asked | set(OURS) | set(SOCKETS) == public
    assert not asked & set(OURS)


def test_every_difference_between_documentation_and_clients_is_shown() -> None:
    assert {subject for call in CALLS for subject in call.about} == set(DIFFERENCES)


def test_every_client_comes_with_its_own_token() -> None:
    of_api = {(call.client, call.token) for call in CALLS if call.path.startswith("/api/")} - {
        (client, Token.NONE) for client in Client
    }
    assert of_api == {
        (Client.GO, Token.ADDON),
        (Client.RUBY, Token.ADDON),
        (Client.JS, Token.USER),
        (Client.DOCUMENTATION, Token.STATIC),
    }


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_is_asked_for_most_and_refuses_little(engine: str) -> None:
    asked = [call for call in CALLS if engine in call.engines]
    assert len([call for call in asked if engine not in call.refused]) > 90


@pytest.fixture(scope="module")
async def replayed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Replay, list[httpx.Request]]:
    """Send every call; gives what went over the wire, too."""
    certificate = tmp_path_factory.mktemp("ca") / "ca.pem"
    certificate.write_text("-----BEGIN CERTIFICATE-----\n")
    requests: list[httpx.Request] = []

    async def keep(request: httpx.Request) -> None:
        requests.append(request)

    async with running(ca_certificate=certificate) as valet:
        valet.client.event_hooks["request"] = [keep]
        replay = Replay(valet.client, FAKE, known(TOKENS["admin"], "ad-one"))
        await replay.run(CALLS)
    return replay, requests


def test_every_call_is_answered_so_that_its_client_can_read_it(replayed: tuple[Replay, list[httpx.Request]]) -> None:
    replay, _ = replayed
    assert not replay.broken, "\n".join(replay.broken)


def test_each_client_sends_in_its_own_way(replayed: tuple[Replay, list[httpx.Request]]) -> None:
    by_go, by_js = (
        [request for request in replayed[1] if request.headers["User-Agent"] == HEADERS[client]["User-Agent"]]
        for client in (Client.GO, Client.JS)
    )
    assert {request.headers["Content-Type"] for request in by_go} == {"application/json"}
    assert all(b"?" in request.url.raw_path for request in by_go if request.method in ("GET", "DELETE"))
    assert all(request.content for request in by_go if request.method in ("POST", "PATCH"))
    (reset,) = (request for request in by_js if request.url.path.endswith("/reset_password"))
    assert (reset.content, "Content-Type" in reset.headers) == (b"", False)
    assert not [request for request in by_js if request.method == "GET" and "Content-Type" in request.headers]
