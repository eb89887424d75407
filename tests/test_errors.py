"""How messages name arguments."""

from contextvars import Context

import pytest

from adrbench.errors import argument, list_first, naming_flags


@pytest.mark.parametrize(
    ("name", "value", "on_the_command_line", "in_python"),
    [
        ("batch_size", 8, "--batch-size 8", "batch_size=8"),
        ("batch_size", None, "--batch-size", "batch_size"),
        ("force", True, "--force", "force=True"),
        ("device", "cpu", "--device cpu", "device='cpu'"),
    ],
)
def test_an_argument_is_named_as_the_caller_writes_it(
    name: str, value: object, on_the_command_line: str, in_python: str
) -> None:
    with naming_flags():
        assert argument(name, value) == on_the_command_line
    assert Context().run(argument, name, value) == in_python


def test_a_list_of_names_is_short_whatever_the_names() -> None:
    assert list_first(["a", "b"], 2) == "a, b"
    assert list_first(["a", "b", "c"], 1) == "a and 2 more"
    assert list_first(["a" * 80, "b" * 81], 2) == f"{'a' * 80}, {'b' * 80}..."
