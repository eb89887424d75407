"""The variables of a launcher: values that none gives are one error that names the variable."""

import pytest

from adrbench.errors import AdrbenchError
from adrbench.runtime.launch import describe_wait
from adrbench.runtime.torchrun import check_launcher
from messages import assert_one_line

VALID = {
    "RANK": "1",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "10.0.0.1",
    "MASTER_PORT": "29500",
}
NO_NUMBERS = (
    "",
    "abc",
    "-1",
    "1.5",
    "9" * 23,
    "0x1",
    " 1",
    "1\n",
    "\u0663",
    "1_0",
    "1e3",
    "\x1b",
    "00",
    "01",
)


@pytest.fixture(autouse=True)
def launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in VALID.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("address", ["10.0.0.1", "node-1.cluster", "fe80::1%eth0", "[::1]"])
def test_values_of_a_launcher_are_accepted(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("MASTER_ADDR", address)
    check_launcher()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in VALID if name != "MASTER_ADDR" for value in NO_NUMBERS),
        ("RANK", "4"),
        ("WORLD_SIZE", "0"),
        ("WORLD_SIZE", "1000000000"),
        ("LOCAL_RANK", "2"),
        ("LOCAL_WORLD_SIZE", "5"),
        ("MASTER_PORT", "0"),
        ("MASTER_PORT", "65536"),
        *(("MASTER_ADDR", value) for value in ("", "no host", "http://host", "-1", "\x1b[31m")),
    ],
)
def test_other_values_are_one_error(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(AdrbenchError, match=f"^the environment variable {name} is ") as raised:
        check_launcher()
    assert_one_line(str(raised.value))
    assert str(raised.value).isprintable()


def test_a_single_process_is_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("RANK", "abc")
    check_launcher()


def test_a_wait_for_other_processes_is_explained() -> None:
    assert describe_wait() == (
        "note: rank 1 (RANK) of 4 (WORLD_SIZE) waits up to 10 minutes for the other processes at "
        "10.0.0.1:29500 (MASTER_ADDR, MASTER_PORT)."
    )
