"""Where work runs: its device, the process group it shares, and requests to stop it."""

from dataclasses import dataclass, field

import torch

from adrbench.runtime.process_group import SINGLE_PROCESS, ProcessGroup
from adrbench.runtime.signals import StopRequest


@dataclass(frozen=True, kw_only=True)
class Context:
    """The surroundings of a training or an evaluation, the same for everything it calls."""

    device: torch.device
    process_group: ProcessGroup = SINGLE_PROCESS
    stop: StopRequest = field(default_factory=StopRequest)
