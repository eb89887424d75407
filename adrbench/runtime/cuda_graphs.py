"""Work on a GPU that does not wait for the host: CUDA graphs, and numbers that come back later.

A graph records the kernels of a piece of work once and launches them at one go from then on, so
that the host's share of a step no longer counts.
"""

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from adrbench.errors import first_line

logger = logging.getLogger(__name__)

#: What goes into work, by name: tensors of the same shapes every time, and numbers.
Inputs = Mapping[str, float | Tensor]
#: work without arguments -> how it is done again, and the tensor that then holds its result.
Capture = Callable[[Callable[[], Tensor]], tuple[Callable[[], None], Tensor]]

#: Calls that run kernel by kernel before the capture; libraries set themselves up in them.
PLAIN_CALLS = 3


class GraphedCall:
    """Work done over and over on a GPU: plainly at first, then captured once and replayed.

    Every call copies its inputs into tensors that stay where they are and works on those, numbers
    included, so that plain and replayed calls are one computation. `work` maps these tensors to
    a tensor. Where capture fails, a warning gives the reason and the calls stay plain.
    """

    def __init__(
        self,
        work: Callable[[Mapping[str, Tensor]], Tensor],
        device: torch.device,
        capture: Capture | None = None,
    ) -> None:
        self.work = work
        self.device = device
        self.stream = (
            torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            if device.type == "cuda"
            else None
        )
        self.capture: Capture | None = capture or self._capture
        self.inputs: dict[str, Tensor] = {}
        self.plain_calls = 0
        self.replay: Callable[[], None] | None = None
        self.result: Tensor | None = None

    def __call__(self, inputs: Inputs) -> Tensor:
        """Return the result for `inputs`; the next call overwrites it."""
        self._load(inputs)
        if self.replay is None and self.capture is not None and self.plain_calls >= PLAIN_CALLS:
            self._try(self.capture)
        if self.replay is None or self.result is None:
            self.plain_calls += 1
            with self._apart():
                return self.work(self.inputs)
        self.replay()
        return self.result

    def _load(self, inputs: Inputs) -> None:
        for name, value in inputs.items():
            if name not in self.inputs:
                like = value if isinstance(value, Tensor) else torch.zeros((), device=self.device)
                self.inputs[name] = torch.empty_like(like)
            if isinstance(value, Tensor):
                self.inputs[name].copy_(value)
            else:
                self.inputs[name].fill_(value)

    def _try(self, capture: Capture) -> None:
        try:
            self.replay, self.result = capture(lambda: self.work(self.inputs))
        except RuntimeError as error:
            self.capture = None
            reason = first_line(error)
            logger.warning(
                f"without a CUDA graph, kernel by kernel: it cannot be captured ({reason})."
            )

    def _capture(self, work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        assert self.stream is not None
        return capture_graph(work, self.stream)

    def _apart(self) -> AbstractContextManager[Any]:
        """Return what plain calls run in: the stream of the capture, whose traces they leave."""
        return nullcontext() if self.stream is None else side_stream(self.stream)


def capture_graph(
    work: Callable[[], Tensor], stream: torch.cuda.Stream, pool: Any = None
) -> tuple[Callable[[], None], Tensor]:
    """Capture `work` as a CUDA graph; return its replay, and the tensor that holds its result.

    `pool` is the memory it shares with other graphs. Raises RuntimeError where it cannot be
    captured, with the stream that was current before current again.
    """
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.device(stream.device):
        before = torch.cuda.current_stream()
        try:
            with torch.cuda.graph(
                graph, pool=pool, stream=stream, capture_error_mode="thread_local"
            ):
                result = work()
        finally:
            torch.cuda.set_stream(before)
    return graph.replay, result


@contextmanager
def side_stream(stream: torch.cuda.Stream) -> Iterator[None]:
    """Work on `stream`, after what was asked for before and before what is asked for later."""
    current = torch.cuda.current_stream(stream.device)
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        yield
    current.wait_stream(stream)


class LossBuffer:
    """The losses of up to `num_steps` steps, kept on the device and read without waiting for it.

    `earlier` (K,) are those of the first K steps where these were taken before.
    """

    def __init__(self, num_steps: int, device: torch.device, earlier: Tensor | None = None) -> None:
        self.on_device = torch.zeros(num_steps, device=device)
        self.on_host = torch.zeros(num_steps, pin_memory=device.type == "cuda")
        self.recorded = 0 if earlier is None else len(earlier)
        if earlier is not None:
            self.on_device[: self.recorded] = earlier.to(device)
        self.sent = self.read = self.recorded
        self.arrival: torch.cuda.Event | None = None
        #: The first step whose loss came to the host and is not finite, with the loss.
        self.not_finite: tuple[int, float] | None = None

    def record(self, loss: Tensor) -> None:
        """Keep the loss of the next step, a scalar."""
        self.on_device[self.recorded] = loss
        self.recorded += 1

    def arrived(self, *, wait: bool = False) -> list[tuple[int, float]]:
        """Return (step, loss) of what came to the host since the last call, oldest first.

        On the CPU, or with `wait`, that is all there is; from a GPU they come some steps later.
        """
        wait = wait or not self.on_device.is_cuda
        if wait:
            self._send()
        if self.arrival is not None:
            if wait:
                self.arrival.synchronize()
            elif not self.arrival.query():  # type: ignore[no-untyped-call]
                return []
        first, self.read = self.read, self.sent
        losses = self.on_host[first : self.read].tolist()
        self._send()
        arrived = list(enumerate(losses, start=first))
        for step, loss in arrived:
            if self.not_finite is None and not math.isfinite(loss):
                self.not_finite = step, loss
        return arrived

    def so_far(self) -> Tensor:
        """Wait for the device; return the recorded losses, on the CPU."""
        return self.on_device[: self.recorded].cpu().clone()

    def mean(self) -> float:
        """Wait for the device; return the mean over the recorded steps."""
        return float(self.on_device[: self.recorded].mean())

    def _send(self) -> None:
        if self.sent == self.recorded:
            return
        new = slice(self.sent, self.recorded)
        self.on_host[new].copy_(self.on_device[new], non_blocking=True)
        self.sent = self.recorded
        if self.on_device.is_cuda:
            self.arrival = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self.arrival.record(torch.cuda.current_stream(self.on_device.device))
