"""The attack on all images, for the outputs of a model: none ends it by being misclassified.

Images that the evaluation attacks in the same way are taken from it. The others are attacked
afterwards, which changes neither the outcomes nor the saved progress.
"""

import warnings

import torch
from torch import Tensor, nn

from adrbench.attacks.reliability_warnings import ReliabilityWarning
from adrbench.attacks.stages import Stage
from adrbench.data import to_float
from adrbench.evaluation.batch_files import BatchStore
from adrbench.evaluation.judge import is_within
from adrbench.evaluation.outputs import AFTERWARDS, IN_EVALUATION, BatchOutputs
from adrbench.evaluation.search import Search
from adrbench.evaluation.stage_runner import StageRunner

#: The name under which the attack on the other images is displayed.
OUTPUTS = "outputs"


class Maximization:
    """A stage whose `perturb` is the `maximize` of another."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.name = stage.name
        self.num_passes = getattr(stage, "num_passes", 0)

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, indices: Tensor) -> Tensor:
        """Return the iterate of each image by which its outputs are judged."""
        x_adv: Tensor = self.stage.maximize(model, x, y, indices)  # type: ignore[attr-defined]
        return x_adv


def attack_others(
    runner: StageRunner, stage: Stage, search: Search, store: BatchStore[BatchOutputs]
) -> None:
    """Attack all images whose outputs the evaluation has not saved in `store`, and save theirs.

    Every rank of the runner's process group calls this, and they share the batches. Batches whose
    outputs an interrupted call has saved are not repeated.
    """
    group = runner.process_group
    listed = (
        _list_others(store, len(runner.images), runner.batch_size) if group.is_rank_zero else None
    )
    listed = group.broadcast(listed)
    assert listed is not None
    indices, remaining = listed
    batches = torch.split(indices, runner.batch_size)
    num_done = len(indices) - sum(len(batches[number]) for number in remaining)
    maximization = Maximization(stage)
    for number in group.claim(remaining):
        runner.callbacks.on_batch(OUTPUTS, num_done, len(indices), 0)
        content = _attack_batch(runner, maximization, search, batches[number])
        store.save(AFTERWARDS, number, content)
        num_done += len(batches[number])
    group.barrier()
    if remaining:
        runner.callbacks.on_batch(OUTPUTS, len(indices), len(indices), 0)


def _list_others(
    store: BatchStore[BatchOutputs], n: int, batch_size: int
) -> tuple[Tensor, list[int]]:
    """Return the images without outputs from the evaluation, and their batches left to attack."""
    others = torch.ones(n, dtype=torch.bool)
    for kind, content in store.load():
        if kind == IN_EVALUATION:
            others[content.indices] = False
    indices = others.nonzero().squeeze(1)
    num_batches = -(-len(indices) // batch_size)
    return indices, [one for one in range(num_batches) if not store.has(AFTERWARDS, one)]


def _attack_batch(
    runner: StageRunner, stage: Maximization, search: Search, indices: Tensor
) -> BatchOutputs:
    """Return the outputs on the images at `indices` (K,)."""
    batch = runner.images.take(indices)
    x, y = to_float(batch.pixels), batch.labels

    def compute() -> BatchOutputs:
        x_adv = runner.attack(stage, search, x, y, indices.to(y.device))
        allowed = is_within(runner.threat, x, x_adv)
        if not allowed.all():
            warnings.warn(
                ReliabilityWarning(
                    f"{stage.name} returned images outside the threat model: the clean images "
                    "replace them in the outputs."
                ),
                stacklevel=2,
            )
        return BatchOutputs.of(
            x,
            x_adv,
            indices=indices,
            allowed=allowed,
            clean_logits=runner.compute_logits(stage, x),
            logits=runner.compute_logits(stage, x_adv),
        )

    return runner.within_memory(search, len(x), compute)
