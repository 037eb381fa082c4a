"""`dbvalet call`."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.commands.trust import Ca, goes_through_proxies, tls_context
from agent.errors import SettingsError

if TYPE_CHECKING:
    import httpx

EXAMPLES = """\b
Examples:
  dbvalet call ad-pg                                       what this database can do
  dbvalet call ad-pg pg-list-queries
  dbvalet call ad-pg pg-cancel-query pid=2000
  dbvalet call ad-my create-database '{"database_name": "custom-db"}'
  dbvalet call ad-my delete-database database_name=custom-db --dry-run
  dbvalet call ad-my set-sqlmode STRICT_TRANS_TABLES,NO_ZERO_DATE
  dbvalet call ad-inf add-retention-policy name=30-days duration=30d default=false
  dbvalet call ad-pg pg-stat-statements-list --json | jq '.result[0]'
  dbvalet call ad-pg pg-stat-statements-list --page 2 --per-page 50
  dbvalet call ad-my delete-database database_name=custom-db --key "$(uuidgen)"

\b
The token stands in --token-file, DBVALET_TOKEN_FILE or DBVALET_TOKEN.
A dbvalet that demands a certificate: DBVALET_CLIENT_CERTIFICATE and DBVALET_CLIENT_KEY.
Exit codes: 0 done; 1 refused, failed or no dbvalet there; 2 the command line is wrong."""

ANSWER_SECONDS = 30.0
"""No action holds longer than 25 s."""

CONNECT_SECONDS = 5.0


def call(
    *,
    database: Annotated[str, typer.Argument(metavar="DB", help="Id of a database, as in ad-pg.")],
    action: Annotated[
        str | None, typer.Argument(metavar="ACTION", help="Without it: list the actions of the database.")
    ] = None,
    params: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PARAMS", help="JSON, KEY=VALUE pairs, the bare value, or - for JSON on standard input."
        ),
    ] = None,
    url: Annotated[
        str, typer.Option(metavar="URL", envvar="DBVALET_URL", help="Where dbvalet listens.")
    ] = "http://127.0.0.1:8000",
    token_file: Annotated[Path | None, typer.Option(metavar="FILE", help="A file that holds the token.")] = None,
    ca: Ca = None,
    as_json: Annotated[bool, typer.Option("--json", help="The answer as it came, refusals too, for programs.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Change nothing: show what would be changed, or why it would be refused.")
    ] = False,
    page: Annotated[int | None, typer.Option(metavar="N", min=1, help="Part of a long list, from 1.")] = None,
    per_page: Annotated[int | None, typer.Option(metavar="N", min=1, help="Entries of a page: 20.")] = None,
    key: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Sent again with the same one, it is done once and answered alike."),
    ] = None,
) -> None:
    """Perform an action through a running dbvalet.

    Times are shown on this machine's clock, durations with their unit; --json has what the server said.
    """
    from agent.commands.answers import print_answer

    path = f"/api/databases/{quoted(database)}"
    if action is None:
        options = {"--dry-run": dry_run, "--page": page, "--per-page": per_page, "--key": key}
        for option, given in options.items():
            if given:
                raise typer.BadParameter("needs an ACTION.", param_hint=option)
        answer = ask(url, "GET", f"{path}/actions", token_file, ca=ca)
    else:
        body = {"action_name": action, **_params(action, params or [])}
        more = {"dry_run": dry_run or None, "page": page, "per_page": per_page}
        body |= {field: value for field, value in more.items() if value is not None}
        headers = {} if key is None else {"Idempotency-Key": key}
        answer = ask(url, "POST", f"{path}/action", token_file, body, ca=ca, headers=headers)
    if as_json:
        sys.stdout.buffer.write(answer.content.rstrip(b"\n") + b"\n")
    else:
        print_answer(answer.status_code, answer.content)
    if answer.status_code != 200:
        raise typer.Exit(1)


def _params(action: str, words: list[str]) -> dict[str, Any]:
    from agent.commands.params import NOT_GIVEN, NotParams, read_params

    if words == ["-"]:
        words = [sys.stdin.read()]
        schemas: list[dict[str, Any]] = []
    else:
        schemas = _schemas_of(action) if words else []
    try:
        read = read_params(words, schemas)
    except NotParams as mistake:
        from agent.commands.actions import params_shown

        takes = " or ".join(sorted({params_shown(schema) for schema in schemas}))
        hint = f" {action} takes: {takes}." if takes else ""
        raise typer.BadParameter(f"{mistake}.{hint}", param_hint="PARAMS") from None
    return {} if read is NOT_GIVEN else {"params": read}


def _schemas_of(action: str) -> list[dict[str, Any]]:
    """Look the action up here and not at the server, which would ask an engine that may be the patient."""
    from engines.engine import installed_engines

    found = [each.actions[action] for each in installed_engines().values() if action in each.actions]
    return [each.params.json_schema() for each in found]


def ask(
    url: str,
    method: str,
    path: str,
    token_file: Path | None,
    body: dict[str, Any] | None = None,
    *,
    ca: Path | None = None,
    headers: Mapping[str, str] | None = None,
) -> httpx.Response:
    """Send one request and give its answer, whatever the status.

    Raises: SettingsError, Unanswered
    """
    import httpx

    from agent.commands.answers import Unanswered

    token = read_token(token_file)
    try:
        base = httpx.URL(url.rstrip("/"))
        if base.scheme not in ("http", "https") or not base.host:
            raise SettingsError("--url", "must begin with http:// or https:// and name a host")
        with httpx.Client(
            verify=tls_context(ca),
            timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
            trust_env=goes_through_proxies(base),
        ) as client:
            every = {"Authorization": f"Bearer {token}", **(headers or {})}
            return client.request(method, f"{base}{path}", json=body, headers=every)
    except httpx.InvalidURL as problem:
        raise SettingsError("--url", f"is not a URL: {problem}") from None
    except httpx.TimeoutException:
        raise Unanswered(f"no answer from {url} within {ANSWER_SECONDS:g} s") from None
    except httpx.TransportError as problem:
        raise Unanswered(f"no dbvalet answers at {url}: {problem}") from None


def read_token(file: Path | None) -> str:
    """Find the token: the file of the option, else of the variable, else the variable itself.

    Raises: SettingsError
    """
    from agent.commands.secret_file import read_secret

    variable, value = os.environ.get("DBVALET_TOKEN_FILE"), os.environ.get("DBVALET_TOKEN")
    if file is not None:
        token = read_secret(file, "--token-file")
    elif variable:
        token = read_secret(Path(variable), "DBVALET_TOKEN_FILE")
    elif value:
        token = value
    else:
        raise SettingsError("--token-file", "is needed, or DBVALET_TOKEN_FILE, or DBVALET_TOKEN")
    if not token.isascii() or not token.isprintable() or not token:
        raise SettingsError("--token-file", "the token must be one line of printable ASCII characters")
    return token


def quoted(segment: str) -> str:
    """Write a text as one segment of a path."""
    from urllib.parse import quote

    return quote(segment, safe="")
