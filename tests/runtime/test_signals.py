"""Signals: handled at once, or deferred until work can be saved."""

import errno
import os
import signal
import termios
import threading
import time
from collections.abc import Iterator

import pytest

from adrbench.runtime import signals as stopping
from adrbench.runtime.signals import Interrupted, StopRequest


@pytest.fixture(autouse=True)
def unignored() -> Iterator[None]:
    """Handle SIGINT, which a shell makes its background processes ignore, and `nohup` SIGHUP."""
    interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)
    hang_up = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGHUP, hang_up)


def send(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(0.001)  # Python handles it between two instructions


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_interrupts_at_once(number: int) -> None:
    with pytest.raises(Interrupted) as caught, StopRequest().handling_signals():
        send(number)
    assert caught.value.number == number
    assert isinstance(caught.value, KeyboardInterrupt), "`except Exception` must not catch it"


def test_a_deferred_signal_is_only_recorded() -> None:
    stop = StopRequest()
    with stop.handling_signals(), stop.deferred():
        send(signal.SIGTERM)
        send(signal.SIGTERM)  # forwarded by another program: the same request
        assert stop.number == signal.SIGTERM


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_deferred_signal_is_acknowledged_once(number: int) -> None:
    acknowledged: list[int] = []
    stop = StopRequest(on_request=acknowledged.append)
    with stop.handling_signals(), stop.deferred():
        send(number)
        send(number)
    assert acknowledged == [number]


def test_a_signal_that_interrupts_at_once_is_not_acknowledged() -> None:
    acknowledged: list[int] = []
    with (
        pytest.raises(Interrupted),
        StopRequest(on_request=acknowledged.append).handling_signals(),
    ):
        send(signal.SIGINT)
    assert acknowledged == []


def test_a_repetition_of_the_signal_does_not_interrupt_again() -> None:
    stop = StopRequest()
    with stop.handling_signals():
        with pytest.raises(Interrupted):
            send(signal.SIGTERM)
        send(signal.SIGINT)
        assert stop.number == signal.SIGTERM


def test_a_second_request_interrupts_deferred_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "ONE_REQUEST_SECONDS", 0.0)
    stop = StopRequest()
    with stop.handling_signals(), stop.deferred():
        send(signal.SIGINT)
        with pytest.raises(Interrupted):
            send(signal.SIGINT)


def test_work_within_immediate_can_be_interrupted() -> None:
    stop = StopRequest()
    with stop.handling_signals(), stop.deferred():
        with pytest.raises(Interrupted), stop.immediate():
            send(signal.SIGINT)
        reached = False
        with pytest.raises(Interrupted), stop.immediate():
            reached = True
        assert not reached, "a signal recorded earlier interrupts"


@pytest.mark.parametrize("ignored", [signal.SIGINT, signal.SIGHUP])
def test_handlers_are_restored_and_ignored_signals_stay_ignored(ignored: int) -> None:
    signal.signal(ignored, signal.SIG_IGN)
    with StopRequest().handling_signals():
        assert signal.getsignal(ignored) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_other_threads_set_no_handlers() -> None:
    seen: list[object] = []

    def work() -> None:
        with StopRequest().handling_signals():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.SIG_DFL]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_output_is_only_discarded_after_a_hangup(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    replaced: list[int] = []

    def fail(descriptor: int) -> None:
        raise termios.error(errno.EIO, "Input/output error")

    monkeypatch.setattr("termios.tcgetattr", fail)
    monkeypatch.setattr("os.dup2", lambda nowhere, descriptor: replaced.append(descriptor))
    stopping.discard_output_after_hangup(number)
    assert replaced == ([1, 2] if number == signal.SIGHUP else [])
