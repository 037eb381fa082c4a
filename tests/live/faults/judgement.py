"""What a request that was sent again was told, held against what the engine shows."""

from tests.live.faults.case import Case
from tests.live.faults.service import Answer, Broken


def judge(case: Case, first: Answer, final: Answer, *, was_done: bool) -> None:
    """Judge two answers to one key.

    first: while something failed; was_done: what the engine showed then, after which others did `case.meanwhile`;
    final: once nothing fails any more

    Raises: Broken
    """
    text = f"first {first.body!r}, then {final.body!r}"
    if first.is_final and (first.status, first.body) != (final.status, final.body):
        raise Broken("done twice", f"another answer: {text}")
    if was_done:
        if not case.is_left_alone():
            raise Broken("done twice", text)
        if final.code not in ("ok", "answer_unknown"):
            raise Broken("odd", f"it was done: {text}")
    elif final.code == "ok":
        if not case.is_done():
            raise Broken("said done, is not", text)
    elif first.is_final:
        if case.is_done():
            raise Broken("done twice", f"it was refused, and is done: {text}")
    elif not is_beyond_doing(case, final):
        raise Broken("no recovery", text)


def is_beyond_doing(case: Case, final: Answer) -> bool:
    """Tell whether what was not done cannot be done: what it is about is gone, or the server does not tell."""
    return (case.dies_with_the_server and final.code == "not_found") or (
        case.cannot_tell and final.code == "answer_unknown"
    )
