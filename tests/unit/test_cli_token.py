"""`dbvalet token` beside a running service on the same state."""

import asyncio
import getpass
import json
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from agent import held, kept_tokens
from agent.commands.root import app
from agent.errors import AgentError
from agent.kept_tokens import KeptToken
from agent.platform import signing_keys
from agent.state.state import DatabaseMemory, State
from engines.errors import Precondition
from tests.fakes.service import TOKENS, Valet, configuration, running, until
from tests.unit.running import command, environment

ROOT = Path(__file__).parents[2]

ONE, TWO = "/api/databases/ad-one", "/api/databases/ad-two"
MANY_TIMES = 0.01


@dataclass
class Shell:
    """A shell on the machine of a service."""

    valet: Valet
    config: Path
    state: Path

    async def run(self, *words: str, code: int = 0) -> Result:
        result = await asyncio.to_thread(CliRunner().invoke, app, ["token", *words, "--config", str(self.config)])
        assert result.exit_code == code, (result.output, result.exception)
        return result

    async def value(self, *words: str) -> str:
        (value,) = (await self.run(*words)).stdout.split()
        return value

    async def status(self, token: str, path: str = ONE, method: str = "GET") -> int:
        return (await self.valet.client.request(method, path, headers={"Authorization": f"Bearer {token}"})).status_code

    def kept(self) -> bytes:
        """Give what is on disk: the file, and its log if there is one."""
        files = [self.state, self.state.with_name("state.db-wal")]
        return b"".join(each.read_bytes() for each in files if each.exists())

    async def becomes(self, status: int, token: str) -> None:
        async with asyncio.timeout(10):
            while await self.status(token) != status:  # noqa: ASYNC110 - what is waited for has no event
                await asyncio.sleep(MANY_TIMES)

    async def exchanged(self, token: str) -> str:
        answer = await self.valet.client.post("/v1/tokens/exchange", auth=("", token))
        return answer.json()["token"]


@pytest.fixture
async def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shell]:
    monkeypatch.setattr(kept_tokens, "LOOK_SECONDS", MANY_TIMES)
    monkeypatch.setattr(signing_keys, "LOOK_SECONDS", MANY_TIMES)
    state = f"sqlite:///{tmp_path}/state.db"
    file = tmp_path / "dbvalet.yaml"
    databases = [{"id": each["id"], "url": "postgresql://a:b@db.example/app"} for each in configuration()["databases"]]
    tokens = [{"name": "ops", "token": TOKENS["admin"], "role": "admin", "databases": ["*"]}]
    file.write_text(json.dumps({"state": state, "tokens": tokens, "databases": databases}))  # JSON is YAML
    async with running(state=state) as valet:
        yield Shell(valet, file, tmp_path / "state.db")


async def test_a_token_gets_in_without_a_restart_and_only_where_it_may(shell: Shell):
    made = await shell.value("create", "one", "--role", "reader", "--database", "ad-one")
    await shell.becomes(200, made)
    assert await shell.status(made, TWO) == 404
    assert await shell.status(made, f"{ONE}/backups", "POST") == 403
    every = await shell.value("create", "every", "--role", "operator", "--all-databases", "--deny", "pg-cancel-query")
    await shell.becomes(200, every)
    assert await shell.status(every, TWO) == 200
    found = shell.valet.service.tokens.authenticate(f"Bearer {every}".encode())
    assert (found.name, found.allow, found.deny) == ("every", None, {"pg-cancel-query"})


async def test_only_the_digest_is_kept_and_no_list_shows_more(shell: Shell):
    made = await shell.value("create", "one", "--role", "reader", "--database", "ad-one")
    listed = (await shell.run("list")).output
    assert [line.split()[0] for line in listed.splitlines()[2:]] == ["ops", "one"]
    assert made not in listed
    assert TOKENS["admin"] not in listed
    assert made.encode() not in shell.kept()
    await shell.becomes(200, made)
    assert made not in shell.valet.log.getvalue().decode()


async def test_a_revoked_token_is_refused_with_all_that_was_made_for_it(shell: Shell):
    made = await shell.value("create", "one", "--role", "reader", "--database", "ad-one")
    await shell.becomes(200, made)
    short = await shell.exchanged(made)
    assert await shell.status(short) == 200
    await shell.run("revoke", "one")
    await shell.becomes(401, made)
    assert await shell.status(short) == 401
    await shell.run("revoke", "one", code=1)


async def test_rotated_both_values_are_good_until_the_old_one_ends(shell: Shell):
    old = await shell.value("create", "one", "--role", "reader", "--database", "ad-one")
    await shell.becomes(200, old)
    short = await shell.exchanged(old)
    new = await shell.value("rotate", "one", "--overlap", "2s")
    await shell.becomes(200, new)
    assert (await shell.status(old), await shell.status(short)) == (200, 200)
    await shell.becomes(401, old)
    assert (await shell.status(short), await shell.status(new)) == (401, 200)
    newest = await shell.value("rotate", "one", "--overlap", "0s")
    await shell.becomes(401, new)
    assert await shell.status(newest) == 200


async def test_an_expired_token_is_refused_and_no_short_lived_one_outlives_it(shell: Shell):
    made = await shell.value("create", "one", "--role", "reader", "--database", "ad-one", "--expires-in", "2s")
    await shell.becomes(200, made)
    short = await shell.exchanged(made)
    await shell.becomes(401, made)
    assert await shell.status(short) == 401
    assert "(expired)" in (await shell.run("list")).output


async def test_a_value_that_could_not_be_written_is_told_with_what_helps(shell: Shell):
    def lost(*words: str) -> str:
        with Path("/dev/full").open("w") as full:
            ended = subprocess.run(
                command("token", *words, "--config", str(shell.config)),
                env=environment(),
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )
        assert ended.returncode == 1
        return ended.stderr.splitlines()[-1]

    said = "dbvalet: Standard output cannot be written: No space left on device. "
    assert await asyncio.to_thread(lost, "create", "one", "--role", "reader", "--all-databases") == (
        f"{said}The token is made, nobody has its value: `dbvalet token revoke one` takes it away."
    )
    assert await asyncio.to_thread(lost, "rotate", "one") == (
        f"{said}Nobody has the new value: `dbvalet token rotate one` makes another one."
    )


async def ends_of(shell: Shell, name: str) -> list[int | None]:
    """Give for how many seconds each value of a token was made, the newest last."""
    (token,) = [each for each in (await kept_in(shell).all()).tokens if each.name == name]
    return [each.expires_at and each.expires_at - each.made_at for each in token.values]


def kept_in(shell: Shell) -> kept_tokens.KeptTokens:
    return kept_tokens.KeptTokens(shell.valet.service.state, shell.valet.service.log)


async def test_a_token_that_ends_does_so_after_a_rotation_too(shell: Shell):
    made = await shell.run("create", "one", "--role", "reader", "--all-databases", "--expires-in", "90d")
    assert re.search(r"It ends: \d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ\.", made.stderr)
    for words, seconds in (
        ((), 90 * 86400),
        ((), 90 * 86400),
        (("--expires-in", "7d"), 7 * 86400),
        ((), 7 * 86400),
        (("--expires-in", "never"), None),
        ((), None),
    ):
        rotated = await shell.run("rotate", "one", *words)
        assert (await ends_of(shell, "one"))[-1] == seconds
        assert ("It ends: never." in rotated.stderr) is (seconds is None)
    listed = (await shell.valet.ask("GET", "/api/audit")).json()["audit"]
    listed = [each for each in listed if each["code"] == "ok"]
    assert [each["params"].get("expires_in") for each in listed[1:]] == [None, None, "7d", None, "never", None]


async def test_new_keys_leave_short_lived_tokens_alone_or_end_them_at_once(shell: Shell):
    short = await shell.exchanged(TOKENS["admin"])
    await shell.run("rotate-keys")
    keys = shell.valet.service.tokens._signed._keys
    await until(lambda: len(keys._keys) == 2)
    assert await shell.status(short) == 200
    await shell.run("rotate-keys", "--at-once")
    await shell.becomes(401, short)
    assert await shell.status(await shell.exchanged(TOKENS["admin"])) == 200


async def test_a_token_of_a_name_that_the_configuration_has_later_is_without_effect(shell: Shell):
    made = await shell.value("create", "admin", "--role", "reader", "--database", "ad-one")  # the service has an admin
    await shell.value("create", "known", "--role", "reader", "--database", "ad-one")
    tokens = shell.valet.service.tokens
    await until(lambda: "known" in {each.name for each in tokens._by_digest.values()})
    assert await shell.status(made) == 401


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["one", "--role", "owner", "--all-databases"], 2, "There are: reader, operator, admin."),
        (["one", "--role", "reader"], 2, "Say which databases"),
        (["one", "--role", "reader", "--database", "ad-one", "--all-databases"], 2, "Say which databases"),
        (["one", "--role", "reader", "--database", "ad-three"], 2, "There is no database ad-three."),
        (["one", "--role", "reader", "--all-databases", "--allow", "pg-cancel"], 2, "No engine has an action pg-can"),
        (["one", "--role", "reader", "--all-databases", "--deny", "*"], 2, "No engine has an action *"),
        (["one", "--role", "reader", "--all-databases", "--expires-in", "soon"], 2, "A time is a number"),
        (["one", "--role", "reader", "--all-databases", "--expires-in", "-1d"], 2, "A time is a number"),
        (
            ["one", "--role", "reader", "--all-databases", "--expires-in", "0s"],
            2,
            "A value that ends at once would let",
        ),
        (
            ["one", "--role", "reader", "--all-databases", "--allow", "delete-database"],
            2,
            "delete-database takes the role admin",
        ),
        (
            ["one", "--role", "reader", "--all-databases", "--allow", "create-backup"],
            2,
            "create-backup takes the role operator",
        ),
        (
            ["one", "--role", "reader", "--all-databases", "--allow", "list-databases", "--allow", "pg-cancel-query"],
            2,
            "pg-cancel-query takes the role operator: with the role reader it is never allowed.",
        ),
        (
            ["one", "--role", "admin", "--all-databases", "--allow", "delete-database", "--deny", "delete-database"],
            2,
            "delete-database is denied by --deny too.",
        ),
        (["o ne", "--role", "reader", "--all-databases"], 2, "must be up to 64 ASCII"),
        (["", "--role", "reader", "--all-databases"], 2, "must be up to 64 ASCII"),
        (["ops", "--role", "reader", "--all-databases"], 2, "The configuration has a token of this name."),
        (["taken", "--role", "reader", "--all-databases"], 1, "There is a token taken"),
    ],
)
async def test_mistakes_are_named_and_make_nothing(shell: Shell, words: list[str], code: int, text: str):
    await shell.value("create", "taken", "--role", "reader", "--database", "ad-one")
    before, listed = shell.kept(), (await shell.run("list")).stdout
    result = await shell.run("create", *words, code=code)
    assert text in (" ".join(result.output.split()) if code == 2 else str(result.exception))
    assert (await shell.run("list")).stdout == listed
    if code == 2:  # else there is a line of it
        assert shell.kept() == before


async def test_a_new_value_that_would_end_at_once_is_refused(shell: Shell):
    old = await shell.value("create", "one", "--role", "reader", "--database", "ad-one")
    result = await shell.run("rotate", "one", "--expires-in", "0d", code=2)
    assert "A value that ends at once would let nobody in." in result.output
    await shell.becomes(200, old)


async def test_what_a_role_may_is_allowed_by_name(shell: Shell):
    for role, name in (("reader", "list-databases"), ("operator", "pg-cancel-query"), ("admin", "delete-database")):
        await shell.run("create", role, "--role", role, "--all-databases", "--allow", name, "--deny", "list-extensions")
    listed = (await shell.run("list")).output
    assert "delete-database, without list-extensions" in listed


async def test_the_state_that_cannot_be_read_leaves_tokens_as_they_were(shell: Shell, monkeypatch: pytest.MonkeyPatch):
    made = await shell.value("create", "one", "--role", "reader", "--database", "ad-one")
    await shell.becomes(200, made)
    shell.state.rename(shell.state.with_name("away.db"))
    shell.state.mkdir()
    await until(lambda: shell.valet.lines("tokens_not_read"))
    assert await shell.status(made) == 200


async def test_while_tokens_cannot_be_read_for_long_those_of_the_state_are_not_taken(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
):
    made = await shell.value("create", "one", "--role", "reader", "--database", "ad-one")
    await shell.becomes(200, made)
    shorts = [await shell.exchanged(made), await shell.exchanged(TOKENS["admin"])]

    async def lost(*_: object) -> None:
        raise Precondition("The state cannot be read.")

    with monkeypatch.context() as patched:
        patched.setattr(DatabaseMemory, "recall", lost)
        patched.setattr(held, "HELD_SECONDS", 0.2)
        # The keys of short tokens are read by a look of their own, so their time ends a little before or after.
        for each in (made, *shorts):
            await shell.becomes(401, each)
        refused = await shell.valet.client.get(ONE, headers={"Authorization": f"Bearer {made}"})
        assert "`dbvalet token` made are not taken until it can" in refused.json()["error"]
        assert (await shell.valet.client.post("/v1/tokens/exchange", auth=("", made))).status_code == 401
        assert await shell.status(TOKENS["admin"]) == 200
        await until(lambda: shell.valet.lines("tokens_without_effect"))
    for each in (made, *shorts):
        await shell.becomes(200, each)
    assert len(shell.valet.lines("tokens_without_effect")) == 1


async def kept_as(shell: Shell, **changes: object) -> None:
    """Write the first value of the first token in another way, as another dbvalet may."""

    def changed(kept: list[dict[str, object]]) -> list[dict[str, object]]:
        (first, *others) = kept
        values = first["values"]
        assert isinstance(values, list)
        return [{**first, "values": [{**values[0], **changes}]}, *others]

    await shell.valet.service.state.memory_of("").change(kept_tokens.MEMORY, changed)


@pytest.mark.parametrize("odd", [{"only_from": "192.0.2.1"}, {"sha256": "x"}, {"expires_at": "tomorrow"}])
async def test_a_token_that_is_not_understood_lets_nobody_in_and_leaves_the_others_alone(
    shell: Shell, odd: dict[str, object]
):
    strange = await shell.value("create", "strange", "--role", "reader", "--all-databases")
    good = await shell.value("create", "good", "--role", "reader", "--all-databases")
    await shell.becomes(200, strange)
    await kept_as(shell, **odd)
    await shell.becomes(401, strange)
    assert await shell.status(good) == 200
    assert [line["names"] for line in shell.valet.lines("tokens_not_understood")] == ["['strange']"]
    listed = await shell.run("list")
    assert "strange: another dbvalet wrote it in a way that this one does not know" in listed.stderr
    await shell.run("create", "strange", "--role", "reader", "--all-databases", code=1)
    await shell.run("rotate", "strange", code=1)
    another = await shell.value("create", "another", "--role", "reader", "--all-databases")
    await shell.becomes(200, another)
    (kept, *_) = await shell.valet.service.state.memory_of("").recall(kept_tokens.MEMORY)
    assert odd.items() <= kept["values"][0].items(), "what is not understood is kept as it stands"
    await shell.run("revoke", "good")
    await shell.becomes(401, good)
    await shell.run("revoke", "strange")
    assert "strange" not in (await shell.run("list")).output


async def test_a_bug_of_one_look_does_not_end_the_looking(shell: Shell, monkeypatch: pytest.MonkeyPatch):
    made = await shell.value("create", "one", "--role", "reader", "--database", "ad-one")
    await shell.becomes(200, made)
    short = await shell.exchanged(TOKENS["admin"])

    async def bug(*_: object) -> list[KeptToken]:
        raise RuntimeError("planted-bug")

    with monkeypatch.context() as patched:
        patched.setattr(kept_tokens.KeptTokens, "all", bug)
        patched.setattr(signing_keys.SigningKeys, "read", bug)
        await until(lambda: len(shell.valet.lines("bug")) > 4)
    await shell.run("revoke", "one")
    await shell.becomes(401, made)
    await shell.run("rotate-keys", "--at-once")
    await shell.becomes(401, short)


def test_a_value_ends_in_the_second_that_was_said():
    now = int(time.time())
    ends = {now - 1: True, now: True, now + 60: False}
    values = {at: kept_tokens.Value(sha256="", made_at=0, expires_at=at) for at in ends}
    assert {at: value.has_expired for at, value in values.items()} == ends


async def test_whoever_made_rotated_and_revoked_a_token_is_in_the_audit(shell: Shell) -> None:
    value = await shell.value("create", "nightly", "--role", "operator", "--database", "ad-one")
    rotated = await shell.value("rotate", "nightly")
    await shell.run("create", "nightly", "--role", "reader", "--all-databases", code=1)
    await shell.run("revoke", "nightly")
    await shell.run("rotate-keys")
    answer = await shell.valet.ask("GET", "/api/audit")
    told = [(each["path"].removeprefix("dbvalet token "), each["code"]) for each in answer.json()["audit"]]
    ends = [("create", "ok"), ("rotate", "ok"), ("create", "refused"), ("revoke", "ok"), ("rotate-keys", "ok")]
    assert told == [line for what, end in ends for line in ((what, "begun"), (what, end))]
    first = answer.json()["audit"][0]
    assert first["who"] == f"{getpass.getuser()} on this machine"
    assert (first["params"]["name"], first["params"]["role"]) == ("nightly", "operator")
    assert value not in answer.text
    assert rotated not in answer.text


async def test_a_command_that_is_killed_has_left_its_line(shell: Shell) -> None:
    killed = "import os; from agent.audit.journal import Journal; Journal.end = lambda *_: os._exit(9); "
    words = ["create", "nightly", "--role", "admin", "--all-databases", "--config", str(shell.config)]
    code = f"{killed} from agent.commands.root import app; app(['token', *{words}])"
    ended = await asyncio.create_subprocess_exec(sys.executable, "-c", code, cwd=ROOT)
    assert await ended.wait() == 9
    assert "nightly" in (await shell.run("list")).stdout
    (line,) = (await shell.valet.ask("GET", "/api/audit")).json()["audit"]
    assert (line["code"], line["params"]["name"]) == ("begun", "nightly")


async def test_a_token_is_not_made_where_that_cannot_be_written_down(shell: Shell) -> None:
    await shell.value("create", "first", "--role", "reader", "--all-databases")
    with closing(sqlite3.connect(shell.state)) as connection:
        connection.execute("ALTER TABLE audit RENAME TO elsewhere")
    await shell.run("create", "second", "--role", "reader", "--all-databases", code=1)
    assert "second" not in (await shell.run("list")).stdout


def alone(folder: Path, *words: str) -> Result:
    """Run a command where no dbvalet runs, and where the configuration has no token."""
    databases = [{"id": "ad-one", "url": "postgresql://a:b@db.example/app"}]
    config = folder / "dbvalet.yaml"
    config.write_text(json.dumps({"state": f"sqlite:///{folder}/state.db", "tokens": [], "databases": databases}))
    return CliRunner().invoke(app, ["token", *words, "--config", str(config)])


def test_it_works_where_no_dbvalet_runs_and_says_where_it_keeps_what_it_has_made(tmp_path: Path):
    made = alone(tmp_path, "create", "one", "--role", "reader", "--all-databases")
    assert made.stderr == f"Kept in {tmp_path}/state.db.\nIt ends: never.\n"
    rotated = alone(tmp_path, "rotate", "one")
    assert rotated.stderr == "It ends: never.\n"
    assert {len(made.stdout.strip()), len(rotated.stdout.strip())} == {64}
    assert made.stdout != rotated.stdout
    assert [line.split()[0] for line in alone(tmp_path, "list").stdout.splitlines()[2:]] == ["one"]


def test_where_there_is_no_token_the_list_says_so(tmp_path: Path):
    listed = alone(tmp_path, "list")
    assert (listed.exit_code, listed.stdout) == (0, "(none)\n")


def test_a_state_that_cannot_be_read_ends_a_command_with_one_line(tmp_path: Path):
    (tmp_path / "state.db").mkdir()
    for words in (("list",), ("create", "one", "--role", "reader", "--all-databases")):
        problem = alone(tmp_path, *words).exception
        assert isinstance(problem, AgentError)
        assert str(tmp_path / "state.db") in problem.message


async def test_what_was_never_begun_can_be_closed(shell: Shell):
    """As when something else fails while a dbvalet starts."""
    state, log = shell.valet.service.state, shell.valet.service.log
    kept_tokens.KeptTokens(state, log).close()
    signing_keys.SigningKeys(state, log).close()


async def test_on_a_shared_state_the_first_key_is_made_before_it_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    state = f"sqlite:///{tmp_path}/state.db"
    async with running(state=state) as valet:
        await valet.service.tokens._signed._keys.read()
        assert valet.service.tokens._signed._keys._keys == []
    monkeypatch.setattr(State, "is_shared", True)
    async with running(state=state) as valet:
        await until(lambda: valet.service.tokens._signed._keys._keys)
        assert len(await valet.service.state.memory_of("").recall(signing_keys.MEMORY)) == 1
