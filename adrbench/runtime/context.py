"""The context of a training or an evaluation: device, process group, requests to stop."""

from dataclasses import dataclass, field

import torch

from adrbench.runtime.process_group import SINGLE_PROCESS, ProcessGroup
from adrbench.runtime.signals import StopRequest


@dataclass(frozen=True, kw_only=True)
class Context:
    """The device, the process group and the stop request that a command passes to its work."""

    device: torch.device
    process_group: ProcessGroup = SINGLE_PROCESS
    stop: StopRequest = field(default_factory=StopRequest)
