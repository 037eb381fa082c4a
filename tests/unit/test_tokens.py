"""Who a request comes from and what it may do."""

import io
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from agent.errors import Forbidden, SettingsError, Unauthenticated
from agent.log import make_log
from agent.platform.signed_tokens import SignedTokens
from agent.platform.signing_keys import SigningKeys
from agent.roles import Role, allows, needed_for
from agent.state.state import State
from agent.tokens import Principal, Tokens
from engines.action import Action, Effect
from tests.fakes import ENGINE
from tests.fakes.service import TOKENS, configuration, settings_of

TOKEN = "a-token-of-the-unit-tests"

NO_SIGNED = SignedTokens(SigningKeys(State("sqlite:////nowhere/state.db"), make_log(stream=io.BytesIO())))
"""No key was ever made."""


def tokens_of(*tokens: dict[str, Any]) -> Tokens:
    defaults = {"role": "admin", "databases": ["*"]}
    settings = settings_of(configuration(tokens=[{**defaults, **token} for token in tokens]), Path("/nowhere"))
    return Tokens(settings, NO_SIGNED)


def principal(**more: Any) -> Principal:
    return Principal(**{"name": "ops", "role": Role.ADMIN, "databases": None, **more})


ALLOWED = {
    (Role.READER, Effect.READ),
    (Role.OPERATOR, Effect.READ),
    (Role.OPERATOR, Effect.WRITE),
    (Role.ADMIN, Effect.READ),
    (Role.ADMIN, Effect.WRITE),
    (Role.ADMIN, Effect.DESTRUCTIVE),
}

OF_EFFECT = {Effect.READ: "list-things", Effect.WRITE: "add-thing", Effect.DESTRUCTIVE: "drop-thing"}


def action(effect: Effect) -> Action:
    return ENGINE.actions[OF_EFFECT[effect]]


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("effect", Effect)
def test_a_role_allows_exactly_its_effects(role: Role, effect: Effect):
    allowed = (role, effect) in ALLOWED
    assert allows(role, effect) is allowed
    assert (principal(role=role).refusal(action(effect)) is None) is allowed


def test_a_refusal_names_the_role_that_is_needed():
    assert principal(role=Role.READER).refusal(action(Effect.DESTRUCTIVE)) == (
        "drop-thing needs the role admin; this token is reader."
    )
    assert [needed_for(effect) for effect in Effect] == [Role.READER, Role.OPERATOR, Role.ADMIN]


def test_a_denied_action_is_refused_whatever_the_role():
    assert principal(deny=frozenset({"add-thing"})).refusal(action(Effect.WRITE)) == (
        "add-thing is not among the actions of this token."
    )
    assert principal(deny=frozenset({"add-thing"})).refusal(action(Effect.READ)) is None


def test_with_allowed_actions_every_other_is_refused():
    allowing = principal(allow=frozenset({"add-thing"}))
    assert allowing.refusal(action(Effect.WRITE)) is None
    assert allowing.refusal(action(Effect.READ)) is not None


def test_what_is_allowed_and_denied_is_denied():
    both = principal(allow=frozenset({"add-thing"}), deny=frozenset({"add-thing"}))
    assert both.refusal(action(Effect.WRITE)) is not None


def test_to_allow_an_action_does_not_lift_the_role():
    assert principal(role=Role.READER, allow=frozenset({"drop-thing"})).refusal(action(Effect.DESTRUCTIVE)) is not None


def test_a_token_that_allows_nothing_may_do_nothing():
    assert principal(allow=frozenset()).refusal(action(Effect.READ)) is not None


def test_a_scope_is_a_list_of_databases_or_all():
    assert principal(databases=None).sees("ad-any")
    assert principal(databases=frozenset({"ad-one"})).sees("ad-one")
    assert not principal(databases=frozenset({"ad-one"})).sees("ad-two")


def test_only_a_token_of_all_databases_may_see_what_shows_all():
    principal(databases=None).require_all_databases()
    with pytest.raises(Forbidden):
        principal(databases=frozenset({"ad-one", "ad-two"})).require_all_databases()


def test_a_token_is_found_by_its_value():
    tokens = tokens_of({"name": "a", "token": TOKEN}, {"name": "b", "token": TOKEN + "b", "role": "reader"})
    assert tokens.authenticate(b"Bearer " + TOKEN.encode()).name == "a"
    found = tokens.authenticate(b"Bearer " + TOKEN.encode() + b"b")
    assert (found.name, found.role, found.databases) == ("b", Role.READER, None)


def test_a_token_may_be_configured_by_its_sha256_in_any_case():
    digest = sha256(TOKEN.encode()).hexdigest()
    for written in (digest, digest.upper()):
        assert tokens_of({"name": "a", "sha256": written}).authenticate(b"Bearer " + TOKEN.encode()).name == "a"


def test_the_sha256_itself_is_no_token():
    digest = sha256(TOKEN.encode()).hexdigest()
    with pytest.raises(Unauthenticated):
        tokens_of({"name": "a", "sha256": digest}).authenticate(b"Bearer " + digest.encode())


def test_a_token_of_a_file_is_its_text_without_the_last_newline(tmp_path: Path):
    for ending in ("", "\n", "\r\n"):
        file = tmp_path / "token"
        file.write_bytes((TOKEN + ending).encode())
        tokens = tokens_of({"name": "a", "token_file": str(file)})
        file.unlink()
        assert tokens.authenticate(b"Bearer " + TOKEN.encode()).name == "a"


@pytest.mark.parametrize(
    "header",
    [None, b"", b"Bearer", b"Bearer ", b"Basic " + TOKEN.encode(), TOKEN.encode(), b"Bearer \xff\xfe", b"Bearer x"],
)
def test_whatever_else_is_unauthenticated(header: bytes | None):
    with pytest.raises(Unauthenticated):
        tokens_of({"name": "a", "token": TOKEN}).authenticate(header)


def test_an_empty_token_is_none_even_if_somebody_configured_its_hash():
    tokens = tokens_of({"name": "a", "sha256": sha256(b"").hexdigest()})
    for header in (b"Bearer", b"Bearer ", b"Bearer  \t"):
        with pytest.raises(Unauthenticated):
            tokens.authenticate(header)


def test_the_same_token_may_not_stand_there_twice():
    with pytest.raises(SettingsError, match=r"^tokens\.1: b has the same token as another$"):
        tokens_of({"name": "a", "token": TOKEN}, {"name": "b", "sha256": sha256(TOKEN.encode()).hexdigest()})


def test_tokens_are_not_kept():
    tokens = tokens_of({"name": "a", "token": TOKEN})
    assert TOKEN not in repr(vars(tokens))
    assert TOKENS["admin"] not in repr(vars(tokens))
