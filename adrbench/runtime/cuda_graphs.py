"""CUDA graphs: work that is captured once, after which its kernels are launched together.

This removes the launch overhead on the host.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from adrbench.errors import first_line
from adrbench.printable import get_logger

logger = get_logger(__name__)

#: The inputs of work, by name: tensors of the same shapes every time, and numbers.
Inputs = Mapping[str, float | Tensor]
#: work without arguments -> its replay, and the tensor that then holds its result.
Capture = Callable[[Callable[[], Tensor]], tuple[Callable[[], None], Tensor]]

#: Calls that run kernel by kernel before the capture, in which libraries initialize themselves.
PLAIN_CALLS = 3


class GraphedCall:
    """Repeated work on a GPU: run eagerly at first, then captured once and replayed.

    Every call copies its inputs, numbers included, into static tensors and works on those, so eager
    and replayed calls are the same computation. `work` maps these tensors to a tensor. If the
    capture fails, a warning gives the reason and calls remain eager.
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
            with self._on_stream():
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
            logger.warning(f"running without a CUDA graph: it cannot be captured ({reason}).")

    def _capture(self, work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        assert self.stream is not None
        return capture_graph(work, self.stream)

    def _on_stream(self) -> AbstractContextManager[Any]:
        """Return the context of eager calls: the stream of the capture, which they warm up."""
        return nullcontext() if self.stream is None else side_stream(self.stream)


def capture_graph(
    work: Callable[[], Tensor], stream: torch.cuda.Stream, pool: Any = None
) -> tuple[Callable[[], None], Tensor]:
    """Capture `work` as a CUDA graph; return its replay, and its result tensor.

    `pool` is the memory it shares with other graphs. Raises RuntimeError where it cannot be
    captured; the current stream is restored in any case.
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
    """Make `stream` current, after all earlier work and before all later work."""
    current = torch.cuda.current_stream(stream.device)
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        yield
    current.wait_stream(stream)
