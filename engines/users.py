"""Database users: what is known of one, and what every engine asks of a new password."""

import secrets
import string
from dataclasses import dataclass

NAME_LENGTH = range(6, 33)
PASSWORD_LENGTH = range(24, 65)

# Letters and digits only: such a password stands in a connection URL without being escaped.
ALPHABET = string.ascii_letters + string.digits


@dataclass(frozen=True, slots=True)
class User:
    """One account of an engine; `password_encryption` is None where the engine does not tell it."""

    name: str
    read_only: bool
    protected: bool
    password_encryption: str | None = None


def made_password() -> str:
    """Make a password of 64 letters and digits that nobody has seen."""
    return "".join(secrets.choice(ALPHABET) for _ in range(PASSWORD_LENGTH[-1]))
