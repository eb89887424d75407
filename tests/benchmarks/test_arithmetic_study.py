"""The study of the arithmetic of a search: what is emulated, what is stored, what is counted."""

from itertools import combinations
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from adrbench.attacks import PGD
from adrbench.attacks.suites import Suite
from adrbench.config.threat import ThreatModel
from adrbench.data import to_float
from adrbench.evaluation.evaluate import evaluate
from adrbench.models.frozen import freeze
from adrbench.models.reduced import reduce_precision
from adrbench.runtime.arithmetic import Arithmetic
from benchmarks import arithmetic
from benchmarks.arithmetic import (
    REFERENCE,
    SEARCHES,
    Outcome,
    Place,
    attack,
    load,
    measure,
    tabulate,
)
from tiny import Linear, build_trained, labelled_by, make_images, train_small_net

N, BATCH = 30, 20
PARTS = {0: 20, 20: 10}


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_the_emulated_search_has_the_logits_of_the_real_one(name: Arithmetic) -> None:
    """Gradients are not compared: on a CPU, those of convolutions are rounded more than once."""
    x, model = pixels(), build_trained("small-cnn").eval()
    frozen = freeze(model, x).model
    real = reduce_precision(frozen, name, x)(x)
    difference = (SEARCHES[name](model, x)(x) - real).norm()
    assert difference < 0.1 * (frozen(x) - real).norm()


def test_every_search_rounds_in_its_own_way() -> None:
    x, model = pixels(), build_trained("wrn-10-1").eval()
    logits = [make(model, x)(x) for make in SEARCHES.values()]
    assert not any(torch.equal(one, other) for one, other in combinations(logits, 2))


def pixels() -> Tensor:
    return torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def two_stages(monkeypatch: pytest.MonkeyPatch) -> Suite:
    """Return a suite of two attacks, which replaces every suite of the study."""
    threat = ThreatModel(eps=0.06)
    suite = Suite(name="two", stages=[PGD(steps=2), PGD(steps=5, loss="margin")])
    bound = suite.bind(threat, 5, 0)
    monkeypatch.setattr(arithmetic, "build_suite", lambda *_: bound)
    monkeypatch.setattr(arithmetic, "THREAT", threat)
    return bound


def test_a_float32_search_has_the_outcomes_of_an_evaluation(
    two_stages: Suite, tmp_path: Path
) -> None:
    images = make_images(N, classes=5, size=8)
    model = train_small_net(images, classes=5)
    x, y = to_float(images.pixels), images.labels
    attack(model, x, y, name="m", suite="two", batch_size=BATCH, out=tmp_path)
    evaluation = evaluate(model, images, two_stages, arithmetic.THREAT, batch_size=BATCH)
    outcomes = {path.name: load(path) for path in tmp_path.iterdir()}
    assert len(outcomes) == len(SEARCHES) * len(PARTS) * len(two_stages.stages)
    first, last = two_stages.stages
    for search in SEARCHES:
        robust: list[int] = []
        for start, n in PARTS.items():
            place = Place(model="m", attack=first.name, search=search, first=start, n=n)
            before = load(place.path(tmp_path))
            clean = evaluation.clean[start : start + n].nonzero().squeeze(1) + start
            assert list(before.entered) == clean.tolist()
            place = Place(model="m", attack=last.name, search=search, first=start, n=n)
            after = load(place.path(tmp_path))
            assert after.entered == before.robust
            robust += after.robust
        if search == REFERENCE:
            assert robust == evaluation.robust.nonzero().squeeze(1).tolist()
    assert 0 < evaluation.robust_correct < evaluation.clean_correct


def test_finished_results_are_not_repeated(
    two_stages: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = make_images(N, classes=5, size=8)
    model = train_small_net(images, classes=5, steps=5)
    x, y = to_float(images.pixels), images.labels

    def run() -> None:
        attack(model, x, y, name="m", suite="two", batch_size=BATCH, out=tmp_path)

    run()
    removed = Place(model="m", attack=two_stages.stages[1].name, search="tf32", first=0, n=20)
    content = load(removed.path(tmp_path))
    removed.path(tmp_path).unlink()
    places: list[Place] = []

    def measure_again(place: Place, *args: object, **options: object) -> Outcome:
        places.append(place)
        return content

    monkeypatch.setattr(arithmetic, "measure", measure_again)
    run()
    assert places == [removed]


class Unchanged:
    """An attack that returns the images."""

    name = "none"

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, indices: Tensor) -> Tensor:
        return x


def test_examples_that_fool_only_the_search_are_counted() -> None:
    """The search predicts the negative of the logits, so it is wrong about every image."""

    class Negative(Linear):
        def forward(self, x: Tensor) -> Tensor:
            return -super().forward(x)

    exact = Linear()
    images = labelled_by(exact, make_images(6))
    place = Place(model="m", attack="none", search="tf32", first=0, n=6)
    x, y = to_float(images.pixels), images.labels
    y[2] = (y[2] + 1) % 3  # fooled in both
    outcome = measure(place, Unchanged(), x, y, search=Negative(), exact=exact, entered=[1, 2, 4])
    assert (list(outcome.robust), list(outcome.unconfirmed)) == ([1, 4], [1, 4])
    confirmed = measure(place, Unchanged(), x, y, search=exact, exact=exact, entered=[1, 2, 4])
    assert (list(confirmed.robust), list(confirmed.unconfirmed)) == ([1, 4], [])


def outcome(search: str, first: int, robust: list[int], unconfirmed: list[int]) -> Outcome:
    return Outcome(
        place=Place(model="m", attack="a", search=search, first=first, n=10),
        entered=[first, first + 1, first + 2, first + 3],
        robust=robust,
        unconfirmed=unconfirmed,
        seconds=2.4,
    )


def test_a_table_counts_changes_in_both_directions() -> None:
    """float32 leaves 0, 1 and 12; tf32 leaves 0, 2, 3 and 12; one part of float16 is missing."""
    table = tabulate(
        [
            outcome("float32", 0, [0, 1], []),
            outcome("float32", 10, [12], []),
            outcome("tf32", 0, [0, 2, 3], [3]),
            outcome("tf32", 10, [12], []),
            outcome("float16", 10, [], []),
            outcome("bfloat16", 20, [22], []),
        ]
    )
    assert list(table)[2:] == [
        "| m | a | float32 | 20 | 8 | 3 | 0 | 0 | 0 | 0 | 5 |",
        "| m | a | tf32 | 20 | 8 | 4 | 1 | 2 | +1 | 1 | 5 |",
        "| m | a | float16 | 10 | 4 | 0 | 1 | 0 | -1 | 0 | 2 |",
    ]
