"""Checks of error messages."""


def assert_one_line(message: str) -> None:
    assert len(message.splitlines()) == 1, message
    assert message.endswith((".", "?")), message


def assert_one_sentence(message: str, *parts: str) -> None:
    assert_one_line(message)
    assert ". " not in message
    for part in parts:
        assert part in message
