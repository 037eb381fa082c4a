"""How the commands that ask a dbvalet reach it: whom they trust, what they show, and whether a proxy is asked."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.errors import SettingsError
from agent.loopback import is_loopback

if TYPE_CHECKING:
    import ssl

    import httpx

Ca = Annotated[
    Path | None,
    typer.Option(
        "--ca",
        metavar="FILE",
        envvar="DBVALET_CA_FILE",
        help="Authorities to trust instead of the public ones, in PEM.",
    ),
]


def tls_context(ca: Path | None) -> ssl.SSLContext | bool:
    """Give what httpx takes as `verify`: the public authorities unless a file of others is given.

    A dbvalet with `tls.client_ca` is shown the certificate of `DBVALET_CLIENT_CERTIFICATE`, whose key stands in the
    same file or in that of `DBVALET_CLIENT_KEY`.

    Raises: SettingsError
    """
    own, key = os.environ.get("DBVALET_CLIENT_CERTIFICATE"), os.environ.get("DBVALET_CLIENT_KEY")
    if ca is None and not own:
        return True
    import ssl

    import httpx

    if ca is None:
        context = httpx.create_ssl_context()
    else:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_verify_locations(ca)
        except OSError as problem:
            raise SettingsError("--ca", _reason(ca, problem)) from None
    if own:
        try:
            context.load_cert_chain(own, key or None)
        except OSError as problem:
            raise SettingsError("DBVALET_CLIENT_CERTIFICATE", _reason(Path(own), problem)) from None
    return context


def goes_through_proxies(url: httpx.URL) -> bool:
    """Tell whether a proxy of the environment is asked: it has no business with what goes to this machine."""
    return not is_loopback(url.host)


def _reason(file: Path, problem: OSError) -> str:
    import ssl

    if isinstance(problem, ssl.SSLError):
        return f"{file} is not what is needed, in PEM: {problem.reason or 'no certificate in it'}"
    return f"{file} cannot be read: {problem.strerror}"
