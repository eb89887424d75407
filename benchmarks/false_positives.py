"""How often tests find a difference between methods where there is none; the level is 5 %.

    python -m benchmarks.false_positives [--results results/published] [--repetitions 4000]

Prints the tables of "How often the tests err" in docs/statistics.md: four tests of the outcomes of
one method minus those of another, for k seeds on n images.

From records: a method is compared with itself, k of its trainings with k others. Every training
is used once in a comparison: differences around a ring of seeds would always average to 0. From
five seeds, two can be set against two others in 15 ways, each with two pairings of the four. These
30 comparisons overlap, so their rates are rough.

From a model: training t of method m classifies image i correctly if

    threshold + image[i] + method_image[m, i] + training[m, t] + noise[m, t, i] > 0

with normal terms. Both methods have the same accuracy, on different images. The variances are
those of records: of noise and method_image, from how often two trainings of one method, and of ADR
and its control, disagree on an image; of training, from how much the accuracies of seeds differ
beyond the noise.
"""

import argparse
import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats

from adrbench.errors import AdrbenchError
from adrbench.report.grouping import SeedGroup, group_records
from adrbench.report.two_way_interval import LEVEL, estimate_difference
from adrbench.results.records import AttackRecord, read_records, unpack_outcomes
from benchmarks.harness.document import render_table

Outcomes = npt.NDArray[np.int8]
#: The outcomes (seeds, images) of a study, by method and epoch.
Study = dict[tuple[str, str], Outcomes]
#: Data set and suite: the strongest attack that was run on all test images at both epochs.
STUDIES = (
    ("digits", "autoattack"),
    ("digits-first-300", "autoattack"),
    ("cifar10-first-1000", "cw"),
    ("cifar10-first-4500", "cw"),
)
MODELS = {"digits": STUDIES[:1], "cifar10 subsets": STUDIES[2:]}
CONTROLS = (("adr", "at"), ("adr+wa", "at+wa"))
NUM_IMAGES, NUM_SEEDS = (360, 1_017, 10_000), (1, 2, 3, 5)
TESTS = ("images only", "seeds only", "both", "both, bound")


@dataclass(frozen=True, kw_only=True)
class Model:
    """The latent terms' variances; those of image, method_image and noise sum to 1."""

    threshold: float
    image: float
    method_image: float
    training: float

    def draw(self, rng: np.random.Generator, k: int, n: int) -> Outcomes:
        """Return differences (k, n) of two methods of the same accuracy."""
        noise = 1 - self.image - self.method_image
        latent = np.sqrt(noise) * rng.standard_normal((2, k, n), dtype=np.float32)
        latent += np.sqrt(self.training) * rng.standard_normal((2, k, 1), dtype=np.float32)
        latent += np.sqrt(self.method_image) * rng.standard_normal((2, 1, n), dtype=np.float32)
        latent += np.sqrt(self.image) * rng.standard_normal(n, dtype=np.float32)
        mine, theirs = (latent > -self.threshold).astype(np.int8)
        differences: Outcomes = mine - theirs
        return differences


def run_tests(d: Outcomes) -> list[bool | None]:
    """Return whether each of TESTS finds a difference in d (k, n); None where one seed is too few.

    Images only is McNemar's exact test or, with several seeds, the permutation test of the signs
    of margins per image, in its normal form. Seeds only is the t-test of the means of seeds. Both
    is the interval of `adrbench report`, and the bound is Banerjee's (Sankhya 22, 1960) for the
    sum of two variances, which is valid whatever they are.
    """
    k, n = d.shape
    margins = d.sum(axis=0, dtype=int)
    if k == 1:
        won, lost = int((margins > 0).sum()), int((margins < 0).sum())
        p = min(1.0, 2 * float(stats.binom.cdf(min(won, lost), won + lost, 0.5)))
        return [p < LEVEL, None, None, None]
    means = d.mean(axis=1)
    of_seeds, of_images = means.var(ddof=1) / k, (margins / k).var(ddof=1) / n
    residual = d - means[:, None] - margins / k + means.mean()
    of_residual = (residual**2).sum() / ((k - 1) * (n - 1) * k * n)
    quantile = float(stats.t.ppf(1 - LEVEL / 2, k - 1)) ** 2 * of_seeds
    bound = quantile + stats.norm.ppf(1 - LEVEL / 2) ** 2 * max(of_images - of_residual, 0)
    squared = float(means.mean()) ** 2
    both = estimate_difference(d).p
    return [
        stats.chi2.sf(margins.sum() ** 2 / max(1, (margins**2).sum()), 1) < LEVEL,
        squared > quantile,
        both is not None and both < LEVEL,
        squared > bound,
    ]


def read_study(results: Path, dataset: str, suite: str) -> Study:
    """Return the methods that have the most seeds of their study."""
    attacked = [one for one in read_records(results) if isinstance(one, AttackRecord)]
    chosen = [one for one in attacked if (one.dataset, one.suite) == (dataset, suite)]
    groups = [group for groups in group_records(chosen).values() for group in groups]
    most = max((len(group.seeds) for group in groups), default=0)
    return {(g.method, g.selection): stack(g) for g in groups if len(g.seeds) == most}


def stack(group: SeedGroup) -> Outcomes:
    """Return the outcomes (seeds, images) of a group that was attacked by one suite."""
    (by_seed,) = group.records.values()
    rows = [unpack_outcomes(by_seed[s].verdicts.robust, group.identity.n) for s in group.seeds]
    return np.stack(rows).astype(np.int8)


def pair_trainings(outcomes: Outcomes, k: int) -> Iterator[Outcomes]:
    """Yield the differences of `k` trainings of one method and `k` others, each pairing once."""
    for chosen in itertools.combinations(range(len(outcomes)), 2 * k):
        for mine in itertools.combinations(chosen, k):
            others = [seed for seed in chosen if seed not in mine]
            for theirs in itertools.permutations(others) if mine[0] == chosen[0] else ():
                yield outcomes[list(mine)] - outcomes[list(theirs)]


def fit(studies: Iterable[Study]) -> Model:
    """Return the model with the accuracy, disagreements and spread over seeds of `studies`."""
    accuracies, within, between, spread = [], [], [], []
    for study in studies:
        for (method, epoch), rows in study.items():
            own = np.mean([(a != b).mean() for a, b in itertools.combinations(rows, 2)])
            within.append(own)
            accuracies.append(rows.mean())
            spread.append(rows.mean(axis=1).var(ddof=1) - own / 2 / rows.shape[1])
            for control in (theirs for mine, theirs in CONTROLS if mine == method):
                pairs = itertools.product(rows, study[control, epoch])
                between.append(np.mean([(a != b).mean() for a, b in pairs]))
    threshold = float(stats.norm.ppf(np.mean(accuracies)))
    same, image = (correlation(threshold, float(np.mean(rate))) for rate in (within, between))
    return Model(
        threshold=threshold,
        image=image,
        method_image=max(same - image, 0.0),
        training=max(float(np.mean(spread)), 0.0) / float(stats.norm.pdf(threshold)) ** 2,
    )


def correlation(threshold: float, disagreement: float) -> float:
    """Return the correlation at which two normal variables fall on different sides so often."""

    def excess(candidate: float) -> float:
        joint = stats.multivariate_normal(cov=[[1, candidate], [candidate, 1]])
        both = float(joint.cdf([threshold, threshold]))
        return 2 * (float(stats.norm.cdf(threshold)) - both) - disagreement

    return float(optimize.brentq(excess, 0.0, 0.999))


def count(differences: Iterable[Outcomes]) -> dict[str, str]:
    """Return the number of comparisons, and the percentage in which each test is significant."""
    found = [run_tests(d) for d in differences]
    columns = zip(TESTS, zip(*found, strict=True), strict=True)
    shown = {name: "-" if own[0] is None else f"{100 * np.mean(own):.1f}" for name, own in columns}
    return {"comparisons": str(len(found)), **shown}


def from_records(results: Path) -> Iterator[dict[str, str]]:
    """Yield a row for each study: one training against another, and two against two."""
    for dataset, suite in STUDIES:
        study = read_study(results, dataset, suite)
        for k in (1, 2):
            found = [d for rows in study.values() for d in pair_trainings(rows, k)]
            if found:
                n = str(found[0].shape[1])
                yield {"records": f"{dataset}, {suite}", "n": n, "seeds": str(k), **count(found)}


def from_models(results: Path, repetitions: int, seed: int) -> Iterator[dict[str, str]]:
    """Yield a row for each model, number of images and number of seeds."""
    for name, studies in MODELS.items():
        model = fit(read_study(results, *study) for study in studies)
        for n, k in itertools.product(NUM_IMAGES, NUM_SEEDS):
            rng = np.random.default_rng([seed, n, k])
            drawn = (model.draw(rng, k, n) for _ in range(repetitions))
            yield {"model": name, "n": str(n), "seeds": str(k), **count(drawn)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=Path("results/published"))
    parser.add_argument("--repetitions", type=int, default=4_000, help="of each simulation")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    rows = from_records(options.results)
    simulated = from_models(options.results, options.repetitions, options.seed)
    sys.stdout.write(f"{render_table(list(rows))}\n\n{render_table(list(simulated))}\n")


if __name__ == "__main__":
    try:
        main()
    except AdrbenchError as error:
        raise SystemExit(f"error: {error}") from error
