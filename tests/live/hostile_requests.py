"""Requests that somebody might send to do harm: any may be refused, and none may reach what it does not name."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from tests.live.hostile_names import PIECES, disguises, lengths

OPERATORS = ('{"$gt":""}', '{"$ne":null}', '{"$where":"1"}', '{"$regex":".*"}', '{"$in":["app"]}', '{"$set":{"a":1}}')
NUMBERS = (
    *('"1"', '"1e3"', '"0x10"', '"-1"', "0", "-1", "1.5", "-0.0", "1e400", "18446744073709551616", "9" * 400),
    *("NaN", "Infinity", "-Infinity", "2147483648", "1e308", "true", "false", "null"),
)
SHAPES = (
    "[]",
    "{}",
    '[""]',
    '{"":""}',
    "[" * 400 + "]" * 400,
    '{"a":' * 300 + "1" + "}" * 300,
    "[" * 5000,
    '"\\ud800"',
)
ACTIONS = {
    "postgresql": (
        *("list-extensions", "pg-list-queries", "pg-cancel-query", "pg-terminate-query"),
        *("pg-stat-statements-enable", "pg-stat-statements-reset", "pg-stat-statements-list"),
    ),
    "mysql": ("list-databases", "create-database", "delete-database", "reset-database", "get-sqlmode", "set-sqlmode"),
    "mongodb": ("list-databases", "create-database", "delete-database", "reset-database"),
    "influxdb": ("list-retention-policies", "add-retention-policy", "del-retention-policy"),
}
NAMED_BY = {"influxdb": "name", "postgresql": "pid"}


@dataclass(frozen=True)
class HostileRequest:
    """A request as it goes over the wire."""

    method: str
    path: str
    body: bytes | None


class Attacker:
    """Makes requests for one engine, the same ones for the same seed."""

    def __init__(self, engine: str, seed: int, known: Sequence[str], pids: Sequence[int] = ()) -> None:
        self._engine = engine
        self._chance = random.Random(f"{seed} {engine}")
        self._known = known
        self._pids = pids
        self._made = 0

    def next(self) -> HostileRequest:
        kind = self._chance.random()
        one = f"/api/databases/ad-{self._engine}"
        if kind < 0.80:
            return HostileRequest("POST", f"{one}/action", self._action().encode("utf-8", "surrogatepass"))
        if kind < 0.90:
            return self._user(f"{one}/users")
        return self._path(one)

    def name(self) -> str:
        """Make a name: one that may be, a disguise of a known one, or pieces of several languages."""
        kind = self._chance.random()
        if kind < 0.08:
            # Now and then one of before, which may be there.
            self._made += self._chance.random() < 0.5
            return f"{self._chance.choice(('h_', 'H-'))}{self._chance.randint(max(0, self._made - 3), self._made)}"
        if kind < 0.5:
            original = self._chance.choice(self._known)
            return self._chance.choice([each for each in disguises(original, self._chance) if each not in self._known])
        pieces = self._chance.choices((*PIECES, *self._known), k=self._chance.randint(1, 6))
        name = "".join(pieces) + "x" * self._chance.choice((0, 0, 0, *lengths(64)))
        return f"{name}'" if name in self._known else name

    def _value(self) -> str:
        kind = self._chance.random()
        if kind < 0.75:
            return json.dumps(self.name(), ensure_ascii=self._chance.random() < 0.5)
        return self._chance.choice(self._chance.choice((OPERATORS, NUMBERS, SHAPES)))

    def _action(self) -> str:
        action = json.dumps(self._chance.choice(ACTIONS[self._engine]))
        if self._chance.random() < 0.05:
            action = self._value()
        parts = [f'"action_name":{action}', f'"params":{self._params(action)}']
        if self._chance.random() < 0.05:
            parts.append(f'"dry_run":{self._chance.choice(("true", "false", "1", "null", self._value()))}')
        if self._chance.random() < 0.02:
            parts.append(f"{json.dumps(self.name())}:{self._value()}")
        self._chance.shuffle(parts)
        return f"{{{','.join(parts)}}}"

    def _params(self, action: str) -> str:
        if action == '"set-sqlmode"' or self._chance.random() < 0.04:
            return self._value()
        field = NAMED_BY.get(self._engine, "database_name")
        value = self._value()
        if self._engine == "postgresql" and self._chance.random() < 0.5:
            value = str(self._chance.choice(self._pids))
        fields = [f'"{field}":{value}']
        if action == '"add-retention-policy"':
            fields.append(f'"duration":{self._chance.choice((json.dumps("30d"), json.dumps("30d"), self._value()))}')
            if self._chance.random() < 0.1:
                fields.append(f'"default":{self._value()}')
        if self._chance.random() < 0.05:
            # Twice: of a key that stands twice the last counts.
            fields.insert(0, f'"{field}":{self._value()}')
        if self._chance.random() < 0.05:
            fields.append(f"{json.dumps(self.name())}:{self._value()}")
        return f"{{{','.join(fields)}}}"

    def _user(self, path: str) -> HostileRequest:
        one = f"{path}/{quote(self.name(), safe='', errors='replace')[:4000]}"
        kind = self._chance.random()
        if kind < 0.4:
            return HostileRequest("DELETE", one, None)
        if kind < 0.5:
            return HostileRequest("POST", f"{one}/reset_password", None)
        password = json.dumps("p" * 30)
        name = json.dumps(f"hostile_{self._chance.randrange(10**6)}") if kind > 0.99 else self._value()
        fields = f'"password":{password},"password_confirmation":{password}'
        if kind < 0.6:
            return HostileRequest("PATCH", one, f'{{"database_user":{{{fields}}}}}'.encode())
        if kind < 0.8:
            fields += f',"read_only":{self._chance.choice(("true", "false", self._value()))}'
        body = f'{{"database_user":{{"name":{name},{fields}}}}}'
        return HostileRequest("POST", path, body.encode("utf-8", "surrogatepass"))

    def _path(self, one: str) -> HostileRequest:
        odd = quote(self.name(), safe="/.." if self._chance.random() < 0.3 else "", errors="replace")[:4000]
        method, path = self._chance.choice(
            (
                ("POST", f"/api/databases/{odd}/action"),
                ("GET", f"/api/databases/{odd}"),
                ("GET", f"{one}/backups/{odd}"),
                ("DELETE", f"{one}/backups/{odd}"),
                ("POST", f"{one}/backups/{odd}/restore"),
                ("GET", f"{one}/backups/{odd}/archive"),
                ("GET", f"/api/backups/{odd}/download?expires={odd}&signature={odd}"),
                ("GET", f"{one}/operations/{odd}"),
                ("GET", f"{one}/metrics/{odd}?since={odd}"),
                ("GET", f"/api/audit?after={odd}&limit={odd}"),
                ("GET", f"/v1/apps/{odd}/variables"),
                ("GET", f"/api/logs/{odd}?token={odd}&timestamp={odd}&filter={odd}"),
                ("PATCH", f"{one}?{odd}"),
            )
        )
        body = self._action().encode("utf-8", "surrogatepass") if method in ("POST", "PATCH") else None
        if path.endswith("/restore"):
            body = None
        return HostileRequest(method, path, body)
