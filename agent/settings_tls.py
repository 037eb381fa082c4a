"""The part of the configuration that says with which certificate dbvalet answers, and whose clients it lets in."""

from __future__ import annotations

from pathlib import Path

from agent.settings_values import Section


class TlsSettings(Section):
    """With it dbvalet speaks HTTPS only, TLS 1.2 and later. Files that are replaced are taken within seconds."""

    certificate: Path
    """A PEM file: the certificate, then those of the authorities between it and one that clients know."""
    key: Path
    """A PEM file: its private key, without a passphrase. Only dbvalet should be able to read it."""
    client_ca: Path | None = None
    """A PEM file of one or several authorities: then a client needs a certificate that one of them signed, on every
    route, and a token besides."""
