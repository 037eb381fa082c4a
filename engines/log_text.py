"""The text of an engine's log: which moment a line is of, what belongs together, and what must not be shown."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from typing import Any, cast

from engines.health import LogLine

MOST_BYTES = 1024 * 1024
"""What is read at most of the end of a log, however many lines are wanted."""

LEAST_BYTES = 64 * 1024
BYTES_A_LINE = 512

MASK = "[secret]"
"""Stands where a password stood."""

LONGEST = 64 * 1024
"""Characters of a text that may hold a password: what comes after is not looked through, and not shown."""

_ISO = re.compile(
    r"(?P<date>\d{4}-\d\d-\d\d)(?:T| {1,2})(?P<time>\d{1,2}:\d\d:\d\d)(?P<part>[.,]\d{1,9})?"
    r"(?P<zone> ?(?:Z|UTC|GMT)\b| ?[+-]\d\d(?::?\d\d)?(?=\s|$)| [A-Z]{2,5}(?= |$))?[ \t]?"
)
"""PostgreSQL (%m and %t of log_line_prefix), MySQL, MongoDB before 4.4. MariaDB writes one digit of the hour and no
zone."""

_INFLUX = re.compile(r"ts=(\S+) ")
_COMMON = re.compile(r"\[(\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4})\]")
"""What InfluxDB writes of requests, in the common log format."""

_CRI = re.compile(r"(\d{4}-\d\d-\d\dT\S+) (?:stdout|stderr) [FP] (.*)")
"""A line of /var/log/pods, as Kubernetes keeps what containers print."""


def bytes_for(lines: int) -> int:
    """Tell how much of the end of a log to read for so many lines."""
    return min(MOST_BYTES, max(LEAST_BYTES, lines * BYTES_A_LINE))


def entries(content: bytes, *, cut: bool, otherwise: datetime, zone: tzinfo | None = None) -> list[LogLine]:
    """Take the end of a log apart into entries, a line with those that go on from it.

    `cut` says that `content` begins in the middle of the log: then what goes on from before is left out, since nobody
    can tell what it is part of. So is a last line that has no end yet. `otherwise` is the moment of what tells none,
    and `zone` the one that abbreviations such as CET stand for.
    """
    if cut:
        content = content.partition(b"\n")[2]
    found: list[LogLine] = []
    own_moment = False  # whether the newest entry has said itself of when it is
    begun = not cut
    for text, outer in _unwrapped(content.rpartition(b"\n")[0]):
        at, rest = moment_of(text, zone)
        if at is not None:
            if not begun:
                found.clear()
            begun = own_moment = True
            found.append(LogLine(at=at, text=rest))
        elif own_moment:
            found[-1] = LogLine(at=found[-1].at, text=f"{found[-1].text}\n{text}")
        elif text.strip():
            found.append(LogLine(at=outer or otherwise, text=text))
    return found


def moment_of(line: str, zone: tzinfo | None = None) -> tuple[datetime | None, str]:
    """Tell of which moment a line says it is, and what else it says; None where it says none that can be read.

    A moment without a zone is taken for UTC.
    """
    matched = _ISO.match(line)
    if matched is not None:
        return _iso(matched, zone), line[matched.end() :]
    text: str | None = None
    if line.startswith('{"t":'):
        text = _json_moment(line)
    elif line.startswith("ts="):
        matched = _INFLUX.match(line)
        text = matched[1] if matched else None
    elif line.startswith("[httpd]"):
        matched = _COMMON.search(line)
        try:
            return (datetime.strptime(matched[1], "%d/%b/%Y:%H:%M:%S %z") if matched else None), line
        except ValueError:
            return None, line
    return (_parsed(text) if text else None), line


def _iso(matched: re.Match[str], zone: tzinfo | None) -> datetime | None:
    abbreviation = (matched["zone"] or "").strip()
    known: tzinfo | None = UTC
    offset = ""
    if abbreviation[:1] in ("+", "-"):
        digits = abbreviation[1:].replace(":", "")
        offset, known = f"{abbreviation[0]}{digits[:2]}:{digits[2:] or '00'}", None
    elif abbreviation not in ("", "Z", "UTC", "GMT"):
        known = zone
        if zone is None:
            return None  # CST is three zones
    part = (matched["part"] or "")[1:7]
    found = _parsed(f"{matched['date']}T{matched['time']:0>8}{'.' + part.ljust(6, '0') if part else ''}{offset}")
    return found if found is None or known is None else found.replace(tzinfo=known)


def _parsed(text: str) -> datetime | None:
    """Read a date and time; InfluxDB and containers write nanoseconds, which Python has not."""
    try:
        return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text))
    except ValueError:
        return None


def _json_moment(line: str) -> str | None:
    try:
        found: Any = json.loads(line)["t"]["$date"]
    except (ValueError, KeyError, TypeError):
        return None  # cut short by the server
    return found if isinstance(found, str) else None


def _unwrapped(content: bytes) -> Iterator[tuple[str, datetime | None]]:
    """Give lines without what Docker and Kubernetes put around them, each with the moment that those tell."""
    for line in content.decode(errors="replace").split("\n"):
        if line.startswith('{"log":'):
            try:
                wrapped: Any = json.loads(line)
            except ValueError:
                wrapped = None
            if isinstance(wrapped, dict):
                kept = cast(dict[str, Any], wrapped)
                yield str(kept["log"]).rstrip("\n"), _parsed(str(kept.get("time", "")))
                continue
        matched = _CRI.match(line)
        if matched is not None:
            yield matched[2], _parsed(matched[1])
        else:
            yield line, None


# What may stand between two words of a statement: spaces, also as JSON writes them, and comments, also ends of such as
# stood in others. No more and no longer ones are looked through, so that no text costs the square of its length. What
# MySQL carries out of a comment (/*!) is none.
_GAP = r"(?>(?:\s+|\\[nrt]|/\*(?!M?!)(?:[^*/]|\*(?!/)|/(?!\*)){0,200}\*/|\*/|(?:--|\#)[^\n\r]{0,200}[\n\r]){0,8})"
_SPACE = rf"(?=\s|\\[nrt]|/\*|--|\#){_GAP}"


def _within(quote: str, level: int) -> str:
    """Give the pattern of a text that stands in another one, `level` deep: each quote is doubled as often.

    What follows two quotes at once tells such a text from an empty one; where it is a space, only its end does.
    """
    one, two = f"{quote}{{{2**level}}}", f"{quote}{{{2 ** (level + 1)}}}"
    inside = rf"(?>(?:{two}|[^{quote}])*)"
    begun = rf"{one}(?>(?:{two})*)"
    return (
        rf"{begun}(?=[^\s{quote}),;]){inside}(?:{quote}{{1,{2**level}}}|\Z)"
        rf"|{begun}(?=[\s),;]){inside}{one}"
    )


_WITHIN = "|".join(_within(quote, level) for quote in "'\"" for level in (3, 2, 1))

# A text as any engine writes it. Whether a backslash before a quote belongs to the text is a matter of the dialect and
# of settings, so everything behind one is masked; and so is a text that has no end.
_TEXT = (
    rf"(?>{_WITHIN}"
    r"|(?:[EeNnXxBb]|[Uu]&|_\w+\s*)?'(?:''|\\[^']|[^'\\])*(?:'|\\'.*|\\?\Z)"
    r'|"(?:""|\\[^"]|[^"\\])*(?:"|\\".*|\\?\Z)'
    r"|(?P<escaped@>\\+['\"]).*?(?:(?P=escaped@)|\Z)"
    r"|\$(?P<tag@>\w*)\$.*?(?:\$(?P=tag@)\$|\Z)"
    r"|0[xX][0-9A-Fa-f]+"
    # a comment without an end, one that is too long, one that is carried out, too many: whatever comes after it
    r"|(?:\s|\\[nrt]|\*/|/\*|--|\#).*)"
)


def _texts(number: int) -> str:
    """Give the pattern of a text and of those that follow at once: the engines join them."""
    return rf"(?:{_TEXT.replace('@', str(number))}(?:{_GAP}(?:{_WITHIN}|'(?:''|\\[^']|[^'\\])*(?:'|\\'.*|\\?\Z)))*)"


# What stands before the word, as in MASTER_PASSWORD, sslpassword and PGPASSWORD.
_KIND = r"(?:\w{1,64}_|ssl|pg)?"
_NAME = rf"\b{_KIND}(?:password|passwd|pwd|client_secret|client_key|server_key)"

# 'ALTER ROLE x PASSWORD ' || …, format('… PASSWORD %L', …): which of the texts becomes the secret, nobody can tell.
_PUT_TOGETHER = re.compile(
    rf"(?:\bIDENTIFIED\b.{{1,200}}?\bBY|{_NAME})\b{_GAP}(?:[=:(]{_GAP})*(?:%(?:\d+\$)?[-\d]*[A-Za-z]|['\"]{{1,16}}{_GAP}\|\|)",
    re.IGNORECASE | re.DOTALL,
)
_FIRST_TEXT = re.compile(r"['\"]|\$\w*\$")

_SECRETS = re.compile(
    # k = 'password'; ALTER ROLE x PASSWORD '…': the quote ends a text, and where the next one begins is not looked for
    rf"(?P<n>{_NAME}\b)(?P<nt>[=:]?['\"]{{1,16}}{_GAP}(?:[;)]|\Z).*)"
    # password=''…'' of a connection string that stands in a text itself
    rf"|(?P<i>{_NAME}\s*=\s*)(?P<it>''(?=[^\s'),;])(?:\\''|[^'\\]|\\(?!'')|'(?!'))*(?:''|\Z)|\\'.*?(?:\\'|\Z))"
    # CREATE USER … PASSWORD '…', SET PASSWORD = '…', PASSWORD('…'), SOURCE_PASSWORD = '…', WITH PASSWORD '…',
    # password = crypt('…', set_config('my.password', '…'
    rf"|(?P<a>\b{_KIND}(?:PASSWORD|CLIENT_KEY|SERVER_KEY)\b(?:[\"`]|'{{1,8}}{_GAP}(?:,|=>){_GAP}(?=[\w'\"$]))?{_GAP}(?:(?:[=:(]|TO\b){_GAP})*"
    rf"(?:\w{{1,64}}{_GAP}\({_GAP}){{0,3}})(?P<at>{_texts(1)})"
    # SET PASSWORD FOR 'a'@'b' = '…'
    rf"|(?P<b>\bSET{_SPACE}PASSWORD{_SPACE}FOR\b(?:'[^']{{0,99}}'|\"[^\"]{{0,99}}\"|`[^`]{{0,99}}`|[^'\"`]){{1,300}}?"
    rf"(?:=|\bTO\b){_GAP}(?:(?:OLD_)?PASSWORD{_GAP}\({_GAP})?)"
    rf"(?P<bt>{_texts(2)})"
    # IDENTIFIED BY '…', IDENTIFIED WITH plugin AS '…', IDENTIFIED VIA plugin USING PASSWORD('…')
    rf"|(?P<c>\bIDENTIFIED\b.{{1,200}}?\b(?:BY|AS|USING){_GAP}(?:PASSWORD{_GAP}\(?{_GAP})?)(?P<ct>{_texts(3)})"
    # IDENTIFIED BY '…' REPLACE '…'
    rf"|(?P<d>\bREPLACE{_GAP})(?P<dt>{_texts(4)})"
    # "pwd": "…", and password: … of a person
    rf"|(?P<e>\b(?:\w{{1,64}}_)?(?:pwd|passwd|passphrase|secret|token|(?:api|secret|private)_key)\\*[\"']?\s*[:=]\s*)(?P<et>{_texts(5)})"
    # password=… of a connection string, but not password = $1
    rf"|(?P<f>{_NAME}\s*[=:]\s*|--passw(?:or)?d\s+)(?P<ft>(?!\$\d+(?![\w$]))(?:\\.|[^\s'\"\\])+)"
    # scheme://user:…@host
    r"|(?P<g>\w://[^\s:/@]{0,256}:)(?P<gt>\S{1,256})(?=@)"
    # a request to InfluxDB
    r"|(?P<h>[?&;](?:p|%70)=)(?P<ht>[^&;\s\"]+)"
    r"|(?P<l>(?:\b|(?<=%20))(?:PASSWORD|PASSWORD(?:\+|%20)+FOR(?:\+|%20)[^\s&\"]{1,200}?(?:=|%3D))(?=\+|%[0-9A-F]{2}))(?P<lt>[^\s&\"]+)"
    r"|(?P<m>\bAuthorization\s*[:=]\s*\w+\s+)(?P<mt>[^\s'\"]+)"
    # what PostgreSQL keeps of a password, wherever it stands
    r"|(?P<j>\bSCRAM-SHA-\d+\$)(?P<jt>[^\s'\"]+)"
    r"|(?P<k>\bmd5)(?P<kt>[0-9a-f]{32})\b",
    re.IGNORECASE | re.DOTALL,
)

_SUSPECT = (
    "passw",
    "identified",
    "pwd",
    "passphrase",
    "secret",
    "token",
    "://",
    "?p=",
    "&p=",
    "scram-sha",
    "md5",
    "_key",
    "authorization",
    ";p=",
    "%70=",
)
"""Without any of these there is nothing to mask: most texts, and this is found out a hundred times as fast."""


def masked(text: str) -> str:
    """Blot out the passwords of a statement, or of an entry of a log: engines show statements as they were given.

    `CREATE ROLE x PASSWORD 'y'` becomes `CREATE ROLE x PASSWORD [secret]`. Rather too much is masked than too little.
    Of a text that may hold one no more than `LONGEST` characters are given: users of the engine choose how long it is.
    """
    if not may_hold_password(text):
        return text
    shown = text[:LONGEST]
    if _PUT_TOGETHER.search(shown):
        first = _FIRST_TEXT.search(shown)
        shown = shown[: first.start() if first else 0] + MASK
    shown = _SECRETS.sub(_without, shown)
    return shown if len(text) <= LONGEST else f"{shown} [cut: this has {len(text)} characters]"


def may_hold_password(text: str) -> bool:
    """Tell whether `masked` has to look at a text at all."""
    lowered = text.lower()
    return any(each in lowered for each in _SUSPECT)


def _without(matched: re.Match[str]) -> str:
    before = next(value for name in "abcdefghijklmn" if (value := matched[name]) is not None)
    return before + MASK
