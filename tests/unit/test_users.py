from engines.users import ALPHABET, PASSWORD_LENGTH, made_password


def test_a_made_password_has_a_length_that_clients_accept_and_needs_no_escaping_in_a_url() -> None:
    made = made_password()
    assert len(made) in PASSWORD_LENGTH
    assert set(made) <= set(ALPHABET)


def test_two_made_passwords_differ() -> None:
    assert made_password() != made_password()
