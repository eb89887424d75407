"""Requests to stop, which come as signals and are heard when work can be left without loss."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
#: Signals that come closer together than this are one request, passed on by several programs.
ONE_REQUEST_SECONDS = 1.0


class Interrupted(KeyboardInterrupt):
    """Work was left because of the signal `number`; `where` says what is saved, if known."""

    def __init__(self, number: int = signal.SIGINT, where: str = "") -> None:
        super().__init__(where)
        self.number = number
        self.where = where
        #: Whether another process of the same run tells the user.
        self.is_reported = False


class StopRequest:
    """Whether somebody asked to stop: `number` is the signal they sent, None so far.

    A signal interrupts at once, except within `deferred`, where the first one is only noted.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._heard_at = 0.0
        self._patient = False

    @contextmanager
    def handling_signals(self) -> Iterator[None]:
        """Take the signals of this process, but for those that it was started to ignore.

        Only the main thread can; in others nothing changes.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        heeded = [n for n in SIGNALS if signal.getsignal(n) is not signal.SIG_IGN]
        before = {number: signal.signal(number, self.hear) for number in heeded}
        try:
            yield
        finally:
            for number, handler in before.items():
                # A handler that is not Python's own is none that could be put back.
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def hear(self, number: int, frame: FrameType | None) -> None:
        """Take note of a signal, or raise Interrupted."""
        now = time.monotonic()
        is_first = self.number is None
        if is_first:
            self.number, self._heard_at = number, now
        elif now - self._heard_at <= ONE_REQUEST_SECONDS:
            return
        if not (is_first and self._patient):
            raise Interrupted(number)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Only take note of a first signal; whoever does the work looks at `number`."""
        before, self._patient = self._patient, True
        try:
            yield
        finally:
            self._patient = before

    @contextmanager
    def immediate(self) -> Iterator[None]:
        """Within `deferred`, be interrupted again, by an earlier signal too."""
        before, self._patient = self._patient, False
        try:
            if self.number is not None:
                raise Interrupted(self.number)
            yield
        finally:
            self._patient = before
