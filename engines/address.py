"""Where a server is and as whom to log in: a URL of the configuration, read once."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit


@dataclass(frozen=True, kw_only=True)
class Address:
    """A parsed database URL. Its text form never shows the password."""

    scheme: str
    host: str
    """The first host where a URL names several (MongoDB)."""
    port: int
    user: str | None
    password: str | None = field(default=None, repr=False)
    database: str
    """The deployment's own logical database."""
    options: dict[str, str] = field(default_factory=dict[str, str], repr=False)
    url: str = field(repr=False)
    """As configured, password included: for drivers that read a URL themselves."""

    def of(self, database: str) -> Address:
        """Give the address of another logical database on the same server, for the same account."""
        parts = urlsplit(self.url)
        options = dict(self.options)
        if parts.scheme.startswith("mongodb") and self.user is not None:
            # The account is kept where it was: without this it would be looked for in the other one.
            options.setdefault("authSource", self.database)
        url = urlunsplit(parts._replace(path=f"/{quote(database, safe='')}", query=urlencode(options)))
        return replace(self, database=database, options=options, url=url)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{self.user or ''}@{host}:{self.port}/{self.database}"


def parse_address(url: str, default_port: int) -> Address:
    """Read a URL such as `postgresql://valet:secret@127.0.0.1:5432/app`; user, password and name may be %-encoded.

    Raises: ValueError, with a text that does not quote the URL
    """
    try:
        parts = urlsplit(url)
        netloc = parts.netloc.rpartition("@")[2].split(",")[0]
        host, port = urlsplit(f"//{netloc}").hostname, urlsplit(f"//{netloc}").port
    except ValueError:
        raise ValueError("is not a URL: a special character in the password must be %-encoded") from None
    credentials = parts.netloc.rpartition("@")[0]
    user, _, password = credentials.partition(":")
    database = unquote(parts.path.removeprefix("/"))
    if not host:
        raise ValueError("names no host")
    if not database or "/" in database:
        raise ValueError("names no logical database (the path of the URL)")
    return Address(
        scheme=parts.scheme,
        host=unquote(host),
        port=port or default_port,
        user=unquote(user) or None,
        password=unquote(password) or None,
        database=database,
        options=dict(parse_qsl(parts.query, keep_blank_values=True)),
        url=url,
    )
