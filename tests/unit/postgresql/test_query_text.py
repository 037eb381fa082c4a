"""Which texts of statements are masked, and how much of a long one is shown."""

from typing import Any

from engines.log_text import LONGEST
from engines.postgresql.query_text import MOST, NOT_SHOWN, mask_queries


async def shown(*texts: str | None) -> list[Any]:
    rows: list[dict[str, Any]] = [{"query": text} for text in texts]
    await mask_queries(rows)
    return [row["query"] for row in rows]


async def test_only_the_password_is_masked_and_what_has_none_stays() -> None:
    assert await shown("SELECT 1", None, "ALTER ROLE x PASSWORD 'y' LOGIN") == [
        "SELECT 1",
        None,
        "ALTER ROLE x PASSWORD [secret] LOGIN",
    ]


async def test_a_long_statement_is_cut_only_where_it_may_hold_a_password() -> None:
    plain = "SELECT " + "1" * LONGEST
    begun = "ALTER ROLE x PASSWORD '"
    fits = begun + "y" * (LONGEST - len(begun) - 1) + "'"
    masked = "ALTER ROLE x PASSWORD [secret]"
    assert await shown(plain, fits, fits + " ") == [
        plain,
        masked,
        f"{masked} [cut: this has {LONGEST + 1} characters]",
    ]


async def test_so_much_is_looked_through_for_one_answer_and_the_rest_is_not_shown() -> None:
    text = "ALTER ROLE x PASSWORD 'y'".ljust(LONGEST)
    whole = MOST // LONGEST
    texts = await shown(*[text] * (whole + 2), "SELECT 1")
    assert all(each.startswith("ALTER ROLE x PASSWORD [secret]") for each in texts[:whole])
    assert texts[whole:] == [NOT_SHOWN, NOT_SHOWN, "SELECT 1"]
