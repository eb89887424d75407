"""Requests to stop: signals that interrupt work at once, or are deferred until it can be saved."""

import errno
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

try:
    import termios
except ImportError:  # only systems with SIGHUP have it
    termios = None  # type: ignore[assignment]

#: Those that stop work once it is saved: Ctrl-C, termination, and the loss of the terminal.
SIGNALS = tuple(
    signal.Signals[name]
    for name in ("SIGINT", "SIGTERM", "SIGHUP")
    if name in signal.Signals.__members__
)
#: Signals that follow each other within this time are one request, forwarded by several programs.
ONE_REQUEST_SECONDS = 1.0


class Interrupted(KeyboardInterrupt):
    """Work was interrupted by the signal `number`.

    `where` completes the sentence "interrupted ..." with how far the work was and what is saved,
    such as "at epoch 3 of 30; saved". `resumes` is whether the same command resumes from there.
    """

    def __init__(
        self, number: int = signal.SIGINT, where: str = "", *, resumes: bool = True
    ) -> None:
        super().__init__(where)
        self.number = number
        self.where = where
        self.resumes = resumes and bool(where)
        #: Whether another process of the same run reports it to the user.
        self.is_reported = False


def select_unignored(signals: Sequence[signal.Signals] = SIGNALS) -> list[signal.Signals]:
    """Return those of `signals` that this process was not started to ignore.

    If a shell or `nohup` starts a process with a signal ignored, the signal must stay ignored.
    """
    return [number for number in signals if signal.getsignal(number) is not signal.SIG_IGN]


class StopRequest:
    """A request to stop: `number` is the signal received, None so far.

    A signal interrupts at once, except within `deferred`, where the first one is only recorded.
    `on_request` is then called with its number, to acknowledge it. It runs within the signal
    handler: it must not print to a stream, which the code that was interrupted may be using.
    """

    def __init__(self, on_request: Callable[[int], None] = lambda number: None) -> None:
        self.number: int | None = None
        self.on_request = on_request
        self._received_at = 0.0
        self._is_deferred = False

    @contextmanager
    def handling_signals(self) -> Iterator[None]:
        """Handle the signals of this process that are not ignored, within the context.

        Outside the main thread, where Python cannot set handlers, this does nothing.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle) for number in select_unignored()}
        try:
            yield
        finally:
            for number, handler in before.items():
                # None is a handler that was not set from Python and cannot be restored.
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Record the signal `number`; raise Interrupted unless it is deferred or a repetition."""
        discard_output_after_hangup(number)
        now = time.monotonic()
        is_first = self.number is None
        if is_first:
            self.number, self._received_at = number, now
        elif now - self._received_at <= ONE_REQUEST_SECONDS:
            return
        if not (is_first and self._is_deferred):
            raise Interrupted(number)
        self.on_request(number)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Only record a first signal; the work within checks `number` where it can stop."""
        before, self._is_deferred = self._is_deferred, True
        try:
            yield
        finally:
            self._is_deferred = before

    @contextmanager
    def immediate(self) -> Iterator[None]:
        """Within `deferred`, be interruptible again; raise at once if a signal was recorded."""
        before, self._is_deferred = self._is_deferred, False
        try:
            if self.number is not None:
                raise Interrupted(self.number)
            yield
        finally:
            self._is_deferred = before


def discard_output_after_hangup(number: int) -> None:
    """Let stdout and stderr lead nowhere if their terminal was closed, of which SIGHUP tells.

    What is printed there later would otherwise raise OSError, possibly before work is saved.
    """
    if termios is None or number != signal.SIGHUP:
        return
    for descriptor in (1, 2):
        try:
            termios.tcgetattr(descriptor)
        except termios.error as error:
            if error.args[0] != errno.EIO:  # it is not a terminal
                continue
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, descriptor)
            os.close(nowhere)
