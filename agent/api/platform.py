"""The platform around the databases (`/v1`): what clients ask of it before they come to `/api`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from agent.api.databases import as_json, stable_id
from agent.api.openapi import described
from agent.api.service import authorization_of, principal_of, service_of
from agent.databases import Database
from agent.errors import ApplicationNotFound, DatabaseNotFound, NotSupported, ProviderNotFound
from agent.tasks import READ_CREDENTIALS
from agent.tokens import Principal
from engines.action import Effect

SCHEMES = {"postgres": "postgresql", "mariadb": "mysql", "influxdb": "http", "https+influxdb": "https"}
"""Of dbvalet's configuration, where clients look for another one: it is one protocol."""

Handler = Callable[..., Awaitable[Response]]

NOT_HERE = "dbvalet stands beside databases that are there: it makes, changes and removes none of them"


class TokenBody(BaseModel):
    """The body of `POST /v1/tokens/exchange`: this key alone, as one client takes the only value there is."""

    token: str
    """A JWT for `Authorization: Bearer`; it lasts an hour."""


class SelfResource(BaseModel):
    """Who holds the token."""

    id: str
    username: str
    email: str
    fullname: str
    flags: dict[str, bool]


class SelfBody(BaseModel):
    """The body of `GET /v1/users/self`."""

    user: SelfResource


class RegionResource(BaseModel):
    """Where requests go: this dbvalet answers all of them."""

    name: str
    display_name: str
    api: str
    database_api: str
    dashboard: str
    ssh: str
    default: bool


class RegionsBody(BaseModel):
    """The body of `GET /v1/regions`."""

    regions: list[RegionResource]


class ProviderResource(BaseModel):
    """An engine."""

    id: str
    name: str


class ProvidersBody(BaseModel):
    """The body of `GET /v1/addon_providers`."""

    addon_providers: list[ProviderResource]


class AddonPlanResource(BaseModel):
    """A plan, as the configuration names it."""

    id: str
    name: str
    display_name: str


class PlansBody(BaseModel):
    """The body of `GET /v1/addon_providers/:provider/plans`."""

    plans: list[AddonPlanResource]


class AddonResource(BaseModel):
    """A database, as an application's addon."""

    id: str
    app_id: str
    resource_id: str
    status: str
    plan: AddonPlanResource
    addon_provider: ProviderResource
    provisioned_at: str | None
    deprovisioned_at: str | None


class AddonBody(BaseModel):
    """The body of `GET /v1/apps/:app/addons/:addon`."""

    addon: AddonResource


class AddonWithToken(AddonResource):
    """A database, and a token for it alone."""

    token: str
    """A JWT for `Authorization: Bearer`; it lasts an hour."""


class AddonTokenBody(BaseModel):
    """The body of `POST /v1/apps/:app/addons/:addon/token`: `addon` is its only key."""

    addon: AddonWithToken


class AddonsBody(BaseModel):
    """The body of `GET /v1/apps/:app/addons`."""

    addons: list[AddonResource]


class ApplicationBody(BaseModel):
    """The body of `GET /v1/apps/:app`."""

    app: dict[str, Any]


class VariablesBody(BaseModel):
    """The body of `GET /v1/apps/:app/variables`."""

    variables: list[dict[str, str]]


class PlatformDatabasesBody(BaseModel):
    """The body of `GET /v1/databases`."""

    databases: list[dict[str, Any]]


async def exchange(request: Request) -> Response:
    """Give a short-lived token for a static one, which comes as the password of `Basic`."""
    service = service_of(request)
    principal, token = await service.tokens.exchange(authorization_of(request.scope))
    service.limits.count(principal.name, Effect.READ)
    service.log.info("token_exchanged", who=principal.name, request_id=request.scope["request_id"])
    return as_json({"token": token})


async def get_self(request: Request) -> Response:
    """Show who holds the token."""
    name = principal_of(request).name
    flags: dict[str, bool] = {}  # with one of an administrator the command-line client asks before each command
    user = {"id": stable_id("user", name), "username": name, "email": "", "fullname": name, "flags": flags}
    return as_json({"user": user})


async def list_regions(request: Request) -> Response:
    """Say where requests go. It takes no token: a client asks before it has one."""
    base = service_of(request).public_url or str(request.base_url).rstrip("/")
    region = dict.fromkeys(("api", "database_api", "dashboard"), base)
    return as_json({"regions": [{"name": "dbvalet", "display_name": "dbvalet", "ssh": "", "default": True, **region}]})


async def list_providers(request: Request) -> Response:
    """List the engines that dbvalet knows. It takes no token, and says nothing of what is declared."""
    providers = [{"id": each.name, "name": each.title} for each in service_of(request).engines.values()]
    return as_json({"addon_providers": sorted(providers, key=lambda each: each["id"])})


async def list_plans(request: Request, provider: str) -> Response:
    """List the plans that the databases of an engine have."""
    principal = principal_of(request)
    if all(each["id"] != provider for each in _providers(request, principal)):
        raise ProviderNotFound
    seen = service_of(request).databases.seen_by(principal)
    names = {each.settings.plan for each in seen if each.engine.name == provider}
    return as_json({"plans": [_plan(name) for name in sorted(names)]})


async def list_platform_databases(request: Request) -> Response:
    """List the databases in the token's scope, as the platform knows them."""
    seen = service_of(request).databases.seen_by(principal_of(request))
    return as_json(
        {
            "databases": [
                {
                    "id": each.id,
                    "name": each.id,
                    "project_id": _app_id(each.settings.app_name),
                    "technology": each.engine.name,
                    "plan": each.settings.plan,
                }
                for each in seen
            ]
        }
    )


async def get_application(request: Request, app: str) -> Response:
    """Show an application: a name under which databases are declared."""
    _, databases = _of_application(request, app)
    name = databases[0].settings.app_name
    return as_json({"app": {"id": _app_id(name), "name": name, "region": "dbvalet", "status": "running", "flags": {}}})


async def list_addons(request: Request, app: str) -> Response:
    """List the databases of an application as its addons."""
    _, databases = _of_application(request, app)
    return as_json({"addons": [await _addon(each) for each in databases]})


async def get_addon(request: Request, app: str, addon: str) -> Response:
    """Show one database of an application as its addon."""
    _, database = _addon_of(request, app, addon)
    return as_json({"addon": await _addon(database)})


async def make_addon_token(request: Request, app: str, addon: str) -> Response:
    """Give a short-lived token that is good for this database alone."""
    principal, database = _addon_of(request, app, addon)
    token = await service_of(request).tokens.signed_for(principal, database.id)
    return as_json({"addon": {**await _addon(database), "token": token}})


async def list_variables(request: Request, app: str) -> Response:
    """List where the databases of an application are, and the account declared, to who may `read-credentials`."""
    principal, databases = _of_application(request, app)
    found: list[dict[str, str]] = []
    for each in databases:
        address = each.server.address
        name = f"SCALINGO_{'MONGO' if each.engine.name == 'mongodb' else each.engine.name.upper()}_URL"
        value = f"{address.scheme}://{address.host}:{address.port}/{address.database}"
        declared = each.settings.for_applications()
        switched_off = READ_CREDENTIALS.name in each.disabled_actions
        if declared is not None and not switched_off and principal.refusal(READ_CREDENTIALS) is None:
            value = declared.get_secret_value()
            service_of(request).log.info("credentials_shown", who=principal.name, database=each.id)
        found.append({"id": stable_id("variable", each.id), "name": name, "value": as_clients_write(value)})
    return as_json({"variables": found})


def as_clients_write(url: str) -> str:
    """Give a URL the scheme by which clients know the engine."""
    scheme, _, rest = url.partition("://")
    return f"{SCHEMES.get(scheme, scheme)}://{rest}"


async def refuse_run(request: Request, app: str) -> Response:
    """Run nothing: there are no containers of an application here."""
    _of_application(request, app)
    raise NotSupported(
        "There are no consoles and one-off containers here: connect to the database with its own client."
    )


async def refuse_provisioning(request: Request, app: str) -> Response:
    """Provision nothing."""
    _of_application(request, app)
    raise NotSupported(f"{NOT_HERE}. Declare a database in its configuration.")


async def refuse_database(request: Request) -> Response:
    """Make no database."""
    principal_of(request)
    raise NotSupported(f"{NOT_HERE}. Declare one in its configuration.")


async def refuse_change(request: Request, app: str, addon: str) -> Response:
    """Change or remove no addon."""
    _addon_of(request, app, addon)
    raise NotSupported(f"{NOT_HERE}.")


async def refuse_login(_: Request) -> Response:
    """Make no static token: they stand in the configuration. Who logs in by a password has none to show."""
    raise NotSupported("Tokens stand in dbvalet's configuration: log in with one of them (`--api-token`).")


def _providers(request: Request, principal: Principal) -> list[dict[str, str]]:
    seen = service_of(request).databases.seen_by(principal)
    engines = {each.engine.name: each.engine.title for each in seen}
    return [{"id": name, "name": engines[name]} for name in sorted(engines)]


def _of_application(request: Request, app: str) -> tuple[Principal, list[Database]]:
    """Find the databases of an application in the token's scope; one without any is not told from an unknown one.

    A database is also an application of its own: the command-line client asks so for each that `/v1/databases` lists.
    """
    principal = principal_of(request)
    seen = service_of(request).databases.seen_by(principal)
    found = [each for each in seen if app in (each.settings.app_name, _app_id(each.settings.app_name))]
    found = found or [each for each in seen if each.id == app]
    if not found:
        raise ApplicationNotFound
    return principal, found


def _addon_of(request: Request, app: str, addon: str) -> tuple[Principal, Database]:
    principal, databases = _of_application(request, app)
    found = next((each for each in databases if each.id == addon), None)
    if found is None:
        raise DatabaseNotFound
    return principal, found


async def _addon(database: Database) -> dict[str, Any]:
    identity = await database.identity()
    made = identity.created_at.isoformat() if identity.created_at else None
    return {
        "id": database.id,
        "app_id": _app_id(database.settings.app_name),
        "resource_id": identity.resource_id,
        "status": "running",
        "plan": _plan(database.settings.plan),
        "addon_provider": {"id": database.engine.name, "name": database.engine.title},
        "provisioned_at": made,
        "deprovisioned_at": None,
    }


def _plan(name: str) -> dict[str, str]:
    return {"id": stable_id("plan", name), "name": name, "display_name": name}


def _app_id(name: str) -> str:
    return stable_id("app", name)


def install(app: FastAPI) -> None:
    """Put the routes of the platform into an app."""
    one_app, addons = "/v1/apps/{app}", "/v1/apps/{app}/addons"
    one_addon = addons + "/{addon}"
    refused = ("not_found", "not_supported")

    def add(
        path: str, handler: Handler, *codes: str, model: Any = dict[str, Any], method: str = "GET", token: bool = True
    ) -> None:
        name = handler.__name__ if method in ("GET", "POST") else f"{handler.__name__}_by_{method.lower()}"
        text = described(*codes, method=method, token=token, tags=["platform"], operation_id=name, response_model=model)
        app.add_api_route(path, handler, **text)

    add("/v1/tokens/exchange", exchange, "state_unavailable", model=TokenBody, method="POST")
    add("/v1/tokens", refuse_login, "not_supported", method="POST", token=False)
    add("/v1/users/self", get_self, model=SelfBody)
    add("/v1/regions", list_regions, model=RegionsBody, token=False)
    add("/v1/addon_providers", list_providers, model=ProvidersBody, token=False)
    add("/v1/addon_providers/{provider}/plans", list_plans, "not_found", model=PlansBody)
    add("/v1/databases", refuse_database, "not_supported", method="POST")
    add("/v1/databases", list_platform_databases, model=PlatformDatabasesBody)
    add(one_app, get_application, "not_found", model=ApplicationBody)
    add(one_app + "/variables", list_variables, "not_found", model=VariablesBody)
    add(one_app + "/run", refuse_run, *refused, method="POST")
    add(addons, list_addons, "not_found", model=AddonsBody)
    add(addons, refuse_provisioning, *refused, method="POST")
    add(one_addon, get_addon, "not_found", model=AddonBody)
    add(one_addon + "/token", make_addon_token, "not_found", "state_unavailable", model=AddonTokenBody, method="POST")
    for method in ("PATCH", "PUT", "DELETE"):
        add(one_addon, refuse_change, *refused, method=method)
