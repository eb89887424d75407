"""Signals: heard at once, or when work can be left without loss."""

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from adrbench.runtime import signals as stopping
from adrbench.runtime.signals import Interrupted, StopRequest


@pytest.fixture(autouse=True)
def heeded() -> Iterator[None]:
    """Heed SIGINT, which a shell lets what it starts in the background ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def send(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(0.001)  # Python hears of it between two instructions


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_interrupts_at_once(number: int) -> None:
    with pytest.raises(Interrupted) as caught, StopRequest().handling_signals():
        send(number)
    assert caught.value.number == number
    assert isinstance(caught.value, KeyboardInterrupt), "others should not catch it as an error"


def test_patient_work_goes_on_and_can_look() -> None:
    stop = StopRequest()
    with stop.handling_signals(), stop.deferred():
        send(signal.SIGTERM)
        send(signal.SIGTERM)  # passed on by another program: the same request
        assert stop.number == signal.SIGTERM


def test_the_same_request_does_not_disturb_what_follows_the_first_interruption() -> None:
    stop = StopRequest()
    with stop.handling_signals():
        with pytest.raises(Interrupted):
            send(signal.SIGTERM)
        send(signal.SIGINT)
        assert stop.number == signal.SIGTERM


def test_whoever_asks_again_later_means_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "ONE_REQUEST_SECONDS", 0.0)
    stop = StopRequest()
    with stop.handling_signals(), stop.deferred():
        send(signal.SIGINT)
        with pytest.raises(Interrupted):
            send(signal.SIGINT)


def test_what_can_be_left_at_once_within_patient_work() -> None:
    stop = StopRequest()
    with stop.handling_signals(), stop.deferred():
        with pytest.raises(Interrupted), stop.immediate():
            send(signal.SIGINT)
        reached = False
        with pytest.raises(Interrupted), stop.immediate():
            reached = True
        assert not reached, "a request from before counts"


def test_handlers_are_put_back_and_ignored_signals_stay_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopRequest().handling_signals():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_leave_signals_alone() -> None:
    seen: list[object] = []

    def work() -> None:
        with StopRequest().handling_signals():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.SIG_DFL]
