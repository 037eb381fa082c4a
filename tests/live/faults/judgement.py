"""What a request that was sent again was told, held against what the engine shows."""

from collections.abc import Callable

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
        if final.code != ("ok" if first.code == "ok" else due(case)):
            raise Broken("odd", f"it was done, and {due(case)} is due: {text}")
    elif final.code == "ok":
        if not case.is_done():
            raise Broken("said done, is not", text)
    elif first.is_final:
        if case.is_done():
            raise Broken("done twice", f"it was refused, and is done: {text}")
    elif not is_beyond_doing(case, final):
        raise Broken("no recovery", text)


def due(case: Case) -> str:
    """Give the code that is due to whoever asks again for what was done, after which others did `case.meanwhile`.

    Not to know is right only where the case says why: whoever looks at nothing never knows.
    """
    return "answer_unknown" if case.cannot_tell or case.others_changed_it else "ok"


def shown_again(case: Case, final: Answer, ask: Callable[[], Answer]) -> Answer:
    """Let others take back what they changed since, and give the answer that is due from then on.

    Raises: Broken
    """
    if final.code == "ok" or case.cannot_tell:
        return final
    case.take_back()
    assert case.is_done()
    told = ask()
    text = f"first {final.body!r}, then, with nothing in the way, {told.body!r}"
    if not case.is_done():
        raise Broken("done twice", text)
    if told.code != "ok":
        raise Broken("odd", f"it was done, and ok is due: {text}")
    return told


def is_beyond_doing(case: Case, final: Answer) -> bool:
    """Tell whether what was not done cannot be done: what it is about is gone, or the server does not tell."""
    return (case.dies_with_the_server and final.code == "not_found") or (
        bool(case.cannot_tell) and final.code == "answer_unknown"
    )
