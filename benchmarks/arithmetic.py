"""Outcomes of attacks that search in reduced arithmetic, beside those that search in float32.

    python -m benchmarks.arithmetic TARGET --images cifar10-first.npz --out DIRECTORY

Every example is judged in float32. TF32, float16 and bfloat16 are emulated (see
`benchmarks.emulation`), float32 in another memory layout shows how much rounding alone changes.
The images are attacked in parts of `--batch-size`, each like an evaluation of its own: the images
that survive an attack enter the next one. Finished results are not repeated, and the table of all
results in the directory is printed at the end; without a TARGET, only the table is printed.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor, nn

from adrbench.attacks.find_suite import build_suite
from adrbench.attacks.predictions import is_correct
from adrbench.attacks.stages import Stage
from adrbench.config.settings import AttackConfig
from adrbench.config.threat import ThreatModel
from adrbench.data import load_examples
from adrbench.evaluation.judge import judge
from adrbench.evaluation.targets import resolve_targets
from adrbench.evaluation.targets.target import TargetOptions
from adrbench.models.frozen import freeze
from adrbench.models.reduced import GradientScaling, find_last_linear
from adrbench.runtime.devices import IMAGE_FORMAT
from adrbench.runtime.files import write_atomically
from benchmarks.emulation import Emulated, EmulatedNetwork

#: (model, a batch of images (N, C, H, W)) -> the model that attacks call.
MakeSearch = Callable[[nn.Module, Tensor], nn.Module]

THREAT = ThreatModel(norm="Linf", eps=8 / 255)
REFERENCE = "float32"
COLUMNS = (
    "model",
    "attack",
    "search",
    "images",
    "attacked",
    "robust",
    "only here fooled",
    "only here robust",
    "net",
    "fooled in the search only",
    "seconds",
)


def in_layout(memory_format: torch.memory_format) -> MakeSearch:
    """Return a function that freezes a model in a memory layout."""
    return lambda model, x: freeze(model, x, (memory_format,)).model


def emulate(arithmetic: Emulated) -> MakeSearch:
    """Return a function that freezes a model and emulates `adrbench.models.reduced`."""

    def make(model: nn.Module, x: Tensor) -> nn.Module:
        frozen = freeze(model, x).model
        exact = find_last_linear(frozen, x[:1])
        return GradientScaling(EmulatedNetwork(frozen, arithmetic, exact=exact))

    return make


#: The searches, by their names in results.
SEARCHES: Mapping[str, MakeSearch] = {
    REFERENCE: in_layout(IMAGE_FORMAT),
    "float32, NCHW": in_layout(torch.contiguous_format),
    "tf32": lambda model, x: EmulatedNetwork(freeze(model, x).model, "tf32"),
    "float16": emulate("float16"),
    "bfloat16": emulate("bfloat16"),
}


@dataclass(frozen=True, kw_only=True)
class Place:
    """One attack with one search on `n` images, from index `first`."""

    model: str
    attack: str
    search: str
    first: int
    n: int

    def path(self, out: Path) -> Path:
        """Return the file of its outcome in the directory of results."""
        search = self.search.replace(", ", "-").lower()
        return out / f"{self.model}-{self.attack}-{search}-{self.first}-{self.n}.json"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The indices of the images that entered, and what became of them.

    `robust` are those that survive in float32; of these, `unconfirmed` are misclassified by the
    search at the example that it returned.
    """

    place: Place
    entered: Sequence[int]
    robust: Sequence[int]
    unconfirmed: Sequence[int]
    seconds: float


def main(
    target: Annotated[str | None, typer.Argument(help="A target of `adrbench attack`.")] = None,
    *,
    out: Annotated[Path, typer.Option(help="Directory of results.")],
    images: Annotated[str, typer.Option(help="A data set: its first test images.")] = "cifar10",
    arch: Annotated[str | None, typer.Option(help="Of a target that does not say.")] = None,
    name: Annotated[str | None, typer.Option(help="Of the model, in results.")] = None,
    suite: Annotated[str, typer.Option(help="The suite.")] = "autoattack",
    n: Annotated[int, typer.Option(help="Number of images.")] = 200,
    batch_size: Annotated[int, typer.Option(help="Images per part.")] = 100,
) -> None:
    """Attack what is missing, and print the table."""
    if target is not None:
        options = TargetOptions(dataset=images, arch=arch, eps=THREAT.eps, norm=THREAT.norm)
        found, *_ = resolve_targets(target, options)
        x, y = load_examples(images, n)
        attack(
            found.model.eval(),
            x,
            y,
            name=name or found.run,
            suite=suite,
            batch_size=batch_size,
            out=out,
        )
    typer.echo("\n".join(tabulate(map(load, sorted(out.glob("*.json"))))))


def attack(
    model: nn.Module, x: Tensor, y: Tensor, *, name: str, suite: str, batch_size: int, out: Path
) -> None:
    """Run each attack of a suite with each search on images `x` (N, C, H, W), where not yet done.

    `name` is the model's in results, which are stored in the directory `out`. An attack runs with
    all searches, on all images, before the next one.
    """
    exact = freeze(model, x[:batch_size]).model
    searches = {search: make(model, x[:batch_size]) for search, make in SEARCHES.items()}
    is_clean, num_classes = predict_clean(exact, x, y, batch_size)
    stages = build_suite(AttackConfig(suite=suite), THREAT, num_classes).stages
    earlier = [None, *(stage.name for stage in stages)]
    for (previous, stage), first, search in product(
        zip(earlier, stages, strict=False), range(0, len(x), batch_size), searches
    ):
        part = range(first, min(first + batch_size, len(x)))
        place = Place(model=name, attack=stage.name, search=search, first=first, n=len(part))
        if place.path(out).exists():
            continue
        entered = [index for index in part if is_clean[index]]
        if previous is not None:
            entered = list(load(replace(place, attack=previous).path(out)).robust)
        outcome = measure(place, stage, x, y, search=searches[search], exact=exact, entered=entered)
        write_atomically(place.path(out), (json.dumps(asdict(outcome)) + "\n").encode())


def predict_clean(model: nn.Module, x: Tensor, y: Tensor, batch_size: int) -> tuple[Tensor, int]:
    """Return which images (N, C, H, W) are classified correctly, (N,), and the class count."""
    with torch.no_grad():
        logits = torch.cat([model(part) for part in torch.split(x, batch_size)])
    return is_correct(logits, y), logits.shape[1]


def measure(
    place: Place,
    stage: Stage,
    x: Tensor,
    y: Tensor,
    *,
    search: nn.Module,
    exact: nn.Module,
    entered: Sequence[int],
) -> Outcome:
    """Attack the images with the indices `entered`, of all images `x` (N, C, H, W), in one batch.

    The attack searches with `search`, and its examples are judged by `exact`.
    """
    started = time.perf_counter()
    indices = torch.tensor(entered, dtype=torch.int64)
    survives = is_claimed = torch.zeros(0, dtype=torch.bool)
    if entered:
        images, labels = x[indices], y[indices]
        x_adv = stage.perturb(search, images, labels, indices)
        survives = judge(exact, THREAT, images, x_adv, labels, attack=stage.name).survives
        with torch.no_grad():
            is_claimed = ~is_correct(search(x_adv), labels)
    return Outcome(
        place=place,
        entered=entered,
        robust=indices[survives].tolist(),
        unconfirmed=indices[survives & is_claimed].tolist(),
        seconds=round(time.perf_counter() - started, 1),
    )


def load(path: Path) -> Outcome:
    """Return the outcome in a file of results."""
    document = json.loads(path.read_text())
    return Outcome(**document | {"place": Place(**document["place"])})


def tabulate(outcomes: Iterable[Outcome]) -> Iterator[str]:
    """Return a Markdown table with a row per model, attack and search.

    A row counts the parts of the images that the search and float32 have in common.
    """
    by_arm: dict[tuple[str, str], dict[str, dict[tuple[int, int], Outcome]]] = {}
    for outcome in outcomes:
        place = outcome.place
        of_arm = by_arm.setdefault((place.model, place.attack), {})
        of_arm.setdefault(place.search, {})[place.first, place.n] = outcome
    yield f"| {' | '.join(COLUMNS)} |"
    yield f"|---|---|---|{'---:|' * (len(COLUMNS) - 3)}"
    for (model, attack_name), of_arm in by_arm.items():
        for search in SEARCHES:
            reference, found = of_arm.get(REFERENCE, {}), of_arm.get(search, {})
            shared = [(reference[part], found[part]) for part in reference if part in found]
            if shared:
                cells = [model, attack_name, search, *map(str, count(shared))]
                yield f"| {' | '.join(cells)} |"


def count(pairs: Sequence[tuple[Outcome, Outcome]]) -> Iterator[int | str]:
    """Return the numbers of a row of the table, from pairs of float32 and a search."""
    yield sum(found.place.n for _, found in pairs)
    yield sum(len(found.entered) for _, found in pairs)
    yield sum(len(found.robust) for _, found in pairs)
    fooled = sum(len({*reference.robust} - {*found.robust}) for reference, found in pairs)
    robust = sum(len({*found.robust} - {*reference.robust}) for reference, found in pairs)
    yield fooled
    yield robust
    yield f"{robust - fooled:+d}" if robust != fooled else 0
    yield sum(len(found.unconfirmed) for _, found in pairs)
    yield round(sum(found.seconds for _, found in pairs))


if __name__ == "__main__":
    typer.run(main)
