"""How many outcomes of AutoAttack rounding alone changes, in what time is left."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from adrbench.evaluation.evaluate import Evaluation
from adrbench.models.frozen import FORMATS, Freezer, Frozen
from adrbench.runtime.arithmetic import Arithmetic, Precision, choose_for_search
from adrbench.runtime.devices import IMAGE_FORMAT
from benchmarks.gpu.autoattack import Target, count_changes, describe_outcomes, render_changes
from benchmarks.gpu.sizes import LAYOUTS, Bench
from benchmarks.harness.adrbench_calls import run_suite
from benchmarks.harness.parts import Measurement, Row
from benchmarks.reference.official_autoattack import WHOLE, shortened

COMPARED = (
    "How many outcomes of the standard AutoAttack rounding alone changes: searches beside one in "
    "float32 in channels last, on slices of the images above, each one batch."
)


class InLayout(Freezer):
    """Freezes models in one memory format, whichever is faster."""

    def __init__(self, memory_format: torch.memory_format) -> None:
        super().__init__()
        self.memory_format = memory_format

    def freeze(
        self, model: nn.Module, x: Tensor, formats: Sequence[torch.memory_format] = (IMAGE_FORMAT,)
    ) -> Frozen:
        """Return the frozen form of `model` in that format."""
        return super().freeze(model, x, (self.memory_format,))


#: What is compared on a slice: the name, what is asked for, and the layout of the float32 model.
SEARCHES: tuple[tuple[str, Precision, str], ...] = (
    ("float32, channels last", "float32", "channels_last"),
    ("no flags", "auto", "channels_last"),
    ("float32, NCHW", "float32", "contiguous"),
    ("float16", "float16", "channels_last"),
)


def list_roundings(bench: Bench, target: Target) -> Iterator[Measurement]:
    """Yield the searches on one slice of the images after the other, float32 first."""
    size = bench.sizes.slice_size
    for first in range(0, len(target.images) - size + 1, size):
        piece = Slice(bench=bench, target=target, first=first)
        for name, precision, layout in SEARCHES:
            row = f"images {first} to {first + size - 1}: {name}"
            yield row, partial(piece.measure, row, precision, layout)


@dataclass(kw_only=True)
class Slice:
    """A slice of the images of a target from index `first`, and its outcomes in float32, (N,)."""

    bench: Bench
    target: Target
    first: int
    exact: Tensor | None = None

    def measure(self, name: str, precision: Precision, layout: str) -> Row:
        """Return the row of a search, beside the first one if that was in float32."""
        searched = choose_for_search(precision, self.bench.device)
        with shortened(self.bench.sizes.share):
            evaluation = self.evaluate(searched, layout)
        if self.exact is None and precision == "float32":
            self.exact = evaluation.robust
        changes = {} if self.exact is None else count_changes(evaluation.robust, self.exact)
        name = f"{name} ({searched})" if precision == "auto" else name
        return Row(
            name=name,
            cells={
                "": name,
                "seconds": f"{evaluation.seconds:.1f}",
                "robust": str(evaluation.robust_correct),
                **(render_changes(changes) if changes else {}),
            },
            facts={
                "seconds": evaluation.seconds,
                "searched": searched,
                "layout": LAYOUTS[layout],
                "n": len(evaluation.robust),
                **describe_outcomes(evaluation),
                **changes,
            },
        )

    def evaluate(self, searched: Arithmetic, layout: str) -> Evaluation:
        """Return the evaluation of the slice as one batch."""
        size = self.bench.sizes.slice_size
        return run_suite(
            self.target.model,
            self.target.images.take(torch.arange(self.first, self.first + size)),
            WHOLE,
            self.target.threat,
            size,
            searched=searched,
            freezer=InLayout(FORMATS[layout]),
        )
