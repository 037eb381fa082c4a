"""Names that somebody might send to do harm, for every action that takes a name: made anew in each run."""

import os
import random
from collections.abc import Iterator, Sequence

SEED = int(os.environ.get("TEST_SEED") or random.SystemRandom().randrange(2**32))
"""Printed by a failing test; set the variable to it to see the same names again."""

PIECES = (
    *"'\"`\\;$%{}()[]<>|?*:./#@!&=+,~^- ",
    *"\0\a\b\t\n\v\f\r\x1a\x1b\x7f\x85\xa0",
    *"\u200b\u200e\u202e\u2028\u2029\ufeff\ufffd\u0130\u0131\u017f\u212a\u00e9\u0301\u4e2d\U0001f600\U0010ffff",
    *("--", "/*", "*/", "#", "''", '""', "\\'", '\\"', "``", "\\n", "\\0", "%00", "%s", "%d", "%(name)s", "{}", "{0}"),
    *("${x}", "$ne", "$where", "$(id)", "`id`", "../", "..\\", "<!--", "\r\n", "&&", "||", "; ", "' OR '1'='1", '" --'),
    *(
        "DROP DATABASE app",
        "'; DROP TABLE x; --",
        "`; DROP DATABASE app; -- ",
        '"; DROP RETENTION POLICY "autogen" ON "app',
    ),
    *("NULL", "true", "0", "-1", "nan", "app", "App", "all", "default", "public", "x", "A", "_", "9", "-"),
)
LOOK_ALIKES = str.maketrans({"a": "\u0430", "e": "\u0435", "o": "\u043e", "i": "\u0456", "c": "\u0441", "s": "\u0455"})
FULL_WIDTH = str.maketrans({chr(code): chr(code + 0xFEE0) for code in range(0x21, 0x7F)})


def hostile_names(known: Sequence[str], count: int = 1_000, longest: int = 64) -> list[str]:
    """Make `count` different names: disguises of the known ones, pieces of several languages, lengths about the limit.

    No lone surrogates: such a name is refused before it is one, as JSON that is no text.
    """
    chance = random.Random(SEED)
    print(f"TEST_SEED={SEED}")
    names = dict.fromkeys(name for original in known for name in disguises(original, chance) if name not in known)
    names |= dict.fromkeys(letter * length for letter in "x\u00e9\U0001f600'" for length in lengths(longest))
    while len(names) < count:
        pieces = chance.choices((*PIECES, *known), k=chance.randint(1, 6))
        name = "".join(pieces) + chance.choice(("", "", " ", "\0", "x" * chance.choice(lengths(longest))))
        if name not in known:
            names[name] = None
    return list(names)


def lengths(longest: int) -> tuple[int, ...]:
    return (1, longest - 1, longest, longest + 1, 4 * longest, 10_000)


def disguises(name: str, chance: random.Random) -> Iterator[str]:
    """Write a name so that it looks like, or is compared as, the real one by somebody careless."""
    yield from (name.upper(), name.title(), name.swapcase(), name.translate(LOOK_ALIKES), name.translate(FULL_WIDTH))
    for odd in (" ", "\t", "\n", "\0", "\u00a0", "\u200b", ".", "/", "\\", ";", "'", '"', "`", "--", "%", "$", "*"):
        place = chance.randint(0, len(name))
        yield from (name + odd, odd + name, name[:place] + odd + name[place:], odd + name + odd)
    yield from (f'"{name}"', f"'{name}'", f"`{name}`", f"[{name}]", f"{name}.{name}", f"../{name}", f"{name}\0.x")
