"""A training step whose networks are compiled, or the plain step where they cannot be.

PyTorch compiles a network at its first pass in each mode, which takes long. Here that happens
before the first step, in a rehearsal of its passes, and never within a step.
"""

from collections.abc import Callable
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from adrbench.models.compiled import compiling, find_reason
from adrbench.models.modes import restored_buffers
from adrbench.printable import get_logger
from adrbench.runtime import seeds
from adrbench.runtime.cuda_graphs import Inputs
from adrbench.training.state import Run, TrainState

logger = get_logger(__name__)

BACKEND = "inductor"


class CompiledStep:
    """The steps of a run, with its student and its averaged model compiled by `torch.compile`.

    `passes` are the forward and backward passes of `step`; they change nothing but gradients and
    buffers. The first call rehearses them. If that raises, a warning gives the reason, and this and
    all later steps are plain ones.
    """

    def __init__(
        self,
        run: Run,
        state: TrainState,
        *,
        passes: Callable[[Inputs], object],
        step: Callable[[Inputs], Tensor],
    ) -> None:
        self.run = run
        self.state = state
        self.passes = passes
        self.step = step
        self.is_compiled: bool | None = None

    def __call__(self, inputs: Inputs) -> Tensor:
        """Take a step on `inputs`, of the same shapes in every call; return its loss.

        An interruption of the first call has no effect on the state of the run.
        """
        if self.is_compiled is None:
            self.is_compiled = self._compile(inputs)
        if not self.is_compiled:
            return self.step(inputs)
        with torch.compiler.set_stance("eager_on_recompile"):
            return self.step(inputs)

    def _compile(self, inputs: Inputs) -> bool:
        """Compile the networks for the passes on `inputs`; return whether that succeeded."""
        models = self.state.models().values()
        logger.info("compiling the networks of the training step.")
        try:
            with self.run.context.stop.immediate():
                for model in models:
                    # Not model.compile: the network's class may use that name for something else.
                    nn.Module.compile(model, backend=BACKEND, dynamic=False, fullgraph=True)
                self._rehearse(inputs)
        except Exception as error:  # the compiler runs the code of the network: either may raise
            for model in models:
                nn.Module.compile(model, disable=True)
            logger.warning(f"running without a compiled step: {find_reason(error)}.")
            return False
        self.state.note_compiled()
        return True

    def _rehearse(self, inputs: Inputs) -> None:
        """Run the passes twice: to compile them, and to check that they stay compiled.

        Raises whatever the compiler does, and RuntimeError if the second time, too, something would
        have to be compiled, as it would in every step.
        """
        config, device = self.run.config, self.run.context.device
        with ExitStack() as restored:
            for model in self.state.models().values():
                restored.enter_context(restored_buffers(model))
            restored.callback(self.state.model.zero_grad)
            restored.enter_context(compiling())
            for stance in ("default", "fail_on_recompile"):
                with (
                    seeds.global_generators(device, config.seed, "rehearsal"),
                    torch.compiler.set_stance(stance),
                ):
                    self.passes(inputs)
