"""Which TLS a URL asks for: `?ssl-mode=VERIFY_CA&ssl_ca=/etc/ssl/db.pem` and the other spellings in use."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum


class Mode(IntEnum):
    """How much is asked of the connection, weakest first, as in MySQL's own clients.

    https://dev.mysql.com/doc/refman/9.7/en/connection-options.html#option_general_ssl-mode
    """

    DISABLED = 0
    PREFERRED = 1
    """Encrypted where the server offers it; the certificate is not looked at."""
    REQUIRED = 2
    VERIFY_CA = 3
    VERIFY_IDENTITY = 4


@dataclass(frozen=True, kw_only=True)
class Tls:
    """What the URL asks for. The paths are those of PEM files."""

    mode: Mode = Mode.PREFERRED
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None


MODES: Mapping[str, Mode] = {
    "disabled": Mode.DISABLED,
    "disable": Mode.DISABLED,
    "false": Mode.DISABLED,
    "0": Mode.DISABLED,
    "off": Mode.DISABLED,
    "no": Mode.DISABLED,
    "preferred": Mode.PREFERRED,
    "prefer": Mode.PREFERRED,
    "required": Mode.REQUIRED,
    "require": Mode.REQUIRED,
    "true": Mode.REQUIRED,
    "1": Mode.REQUIRED,
    "on": Mode.REQUIRED,
    "yes": Mode.REQUIRED,
    "skip-verify": Mode.REQUIRED,
    "verify_ca": Mode.VERIFY_CA,
    "verify-ca": Mode.VERIFY_CA,
    "verify_identity": Mode.VERIFY_IDENTITY,
    "verify-identity": Mode.VERIFY_IDENTITY,
    "verify-full": Mode.VERIFY_IDENTITY,
}

MODE_OPTIONS = frozenset({"ssl", "sslmode", "tls", "usessl", "requiressl"})

VERIFYING_OPTIONS: Mapping[str, Mode] = {
    "sslverifycert": Mode.VERIFY_CA,
    "verifyservercertificate": Mode.VERIFY_CA,
    "sslverifyidentity": Mode.VERIFY_IDENTITY,
    "sslcheckhostname": Mode.VERIFY_IDENTITY,
}

FILE_OPTIONS = {"sslca": "ca", "sslcert": "certificate", "sslkey": "key"}


def requested(options: Mapping[str, str]) -> Tls:
    """Read the options of a URL; `ssl-mode`, `ssl_mode` and `sslMode` are one option, and others than TLS's are left.

    Naming a CA asks for its verification.

    Raises: ValueError, naming the option
    """
    mode: Mode | None = None
    verifying = Mode.DISABLED
    files: dict[str, str] = {}
    for option, value in options.items():
        key = option.lower().replace("-", "").replace("_", "")
        if key in MODE_OPTIONS or key in VERIFYING_OPTIONS:
            wanted = MODES.get(value.lower() or "true")
            if wanted is None:
                raise ValueError(f"{option}: {value!r} is none of {', '.join(each.name for each in Mode)}")
            if key in MODE_OPTIONS:
                mode = wanted if mode is None else max(mode, wanted)
            elif wanted is not Mode.DISABLED:
                verifying = max(verifying, VERIFYING_OPTIONS[key])
        elif key in FILE_OPTIONS:
            files[FILE_OPTIONS[key]] = value
    if "key" in files and "certificate" not in files:
        raise ValueError("ssl_key needs ssl_cert beside it")
    if mode is None:
        mode = Mode.VERIFY_CA if "ca" in files else Mode.REQUIRED if files else Mode.PREFERRED
    if verifying and mode is not Mode.DISABLED:
        mode = max(mode, verifying)
    return Tls(mode=mode, ca=files.get("ca"), certificate=files.get("certificate"), key=files.get("key"))


def context(tls: Tls) -> ssl.SSLContext | None:
    """Make the context that every connection of a server shares, or None where TLS is disabled.

    The system's certificates, 20 ms of CPU and megabytes of memory, are read only when they are needed.

    Raises: OSError (a file is missing or is no PEM; ssl.SSLError is one too)
    """
    if tls.mode is Mode.DISABLED:
        return None
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = tls.mode is Mode.VERIFY_IDENTITY
    if tls.mode < Mode.VERIFY_CA:
        made.verify_mode = ssl.CERT_NONE
    elif tls.ca:
        made.load_verify_locations(tls.ca)
    else:
        made.load_default_certs()
    # Python 3.13 sets this flag, which the certificates that MySQL makes for itself do not pass.
    made.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if tls.certificate:
        made.load_cert_chain(tls.certificate, tls.key)
    return made
