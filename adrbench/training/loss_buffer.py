"""The losses of an epoch, copied from the device without blocking it."""

import math

import torch
from torch import Tensor


class LossBuffer:
    """The losses of up to `num_steps` steps, kept on the device and read without waiting for it.

    `earlier` (K,) are those of the first K steps of a resumed epoch.
    """

    def __init__(self, num_steps: int, device: torch.device, earlier: Tensor | None = None) -> None:
        self.num_steps = num_steps
        self.device = device
        self.on_device = torch.zeros(num_steps, device=device)
        self.on_host = torch.zeros(num_steps, pin_memory=device.type == "cuda")
        self.recorded = 0 if earlier is None else len(earlier)
        if earlier is not None:
            self.on_device[: self.recorded] = earlier.to(device)
        self.sent = self.read = self.recorded
        self.arrival: torch.cuda.Event | None = None
        #: The first step whose loss arrived and is not finite, with the loss.
        self.not_finite: tuple[int, float] | None = None

    def record(self, loss: Tensor) -> None:
        """Store the loss of the next step, a scalar."""
        self.on_device[self.recorded] = loss
        self.recorded += 1

    def arrived(self, *, wait: bool = False) -> list[tuple[int, float]]:
        """Return (step, loss) of what arrived on the host since the last call, oldest first.

        On the CPU, or with `wait`, these are all losses so far; from a GPU they arrive some steps
        later.
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


def check_losses(losses: object, num_steps: int) -> Tensor:
    """Return the saved losses of an epoch of `num_steps` steps; ValueError if they are invalid."""
    if not isinstance(losses, Tensor) or losses.ndim != 1 or losses.dtype != torch.float32:
        raise ValueError("its losses should be a list of float32 numbers")
    if len(losses) > num_steps or not bool(losses.isfinite().all()):
        raise ValueError(f"its losses should be finite numbers, at most {num_steps}")
    return losses
