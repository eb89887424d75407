"""The study of false positives: its model, its pairs, and the script run small."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from adrbench.report.two_way_interval import LEVEL, estimate_difference
from benchmarks.false_positives import (
    MODELS,
    NUM_IMAGES,
    NUM_SEEDS,
    Model,
    correlation,
    fit,
    main,
    pair_trainings,
    read_study,
    run_tests,
)

PUBLISHED = Path(__file__).parents[2] / "results" / "published"
MODEL = Model(threshold=0.5, image=0.8, method_image=0.1, training=0.01)


def test_each_training_is_used_once_in_a_comparison_and_each_pairing_once() -> None:
    """5 seeds make 10 pairs; 5 choices of four, 3 ways to halve them and 2 to pair the halves."""
    outcomes = np.eye(5, 8, dtype=np.int8)
    assert len(list(pair_trainings(outcomes, 1))) == 10
    found = [d.tobytes() for d in pair_trainings(outcomes, 2)]
    assert len(found) == 5 * 3 * 2
    assert len(set(found)) == len(found)
    for d in pair_trainings(outcomes, 2):
        assert (d == 1).sum() == (d == -1).sum() == 2
    assert list(pair_trainings(outcomes[:3], 2)) == []


def test_a_correlation_gives_the_disagreement_it_is_found_from() -> None:
    """Two standard normal variables fall on different sides of 0 with probability acos(r) / pi."""
    for expected in (0.2, 0.7, 0.95):
        assert correlation(0.0, np.arccos(expected) / np.pi) == pytest.approx(expected, abs=1e-3)


def test_two_methods_of_a_model_are_equally_accurate_and_disagree_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    d = np.stack([MODEL.draw(rng, 1, 2_000)[0] for _ in range(300)])
    assert abs(d.mean()) < 4 * d.mean(axis=1).std() / np.sqrt(300)
    disagreement = (d != 0).mean()
    assert correlation(MODEL.threshold, disagreement) == pytest.approx(MODEL.image, abs=0.02)


def test_the_fitted_model_has_the_spread_over_seeds_of_the_records() -> None:
    study = read_study(PUBLISHED, "digits", "autoattack")
    assert {len(rows) for rows in study.values()} == {5}
    model = fit([study])
    accuracies = np.stack([rows.mean(axis=1) for rows in study.values()])
    spread = np.sqrt(model.training) * stats.norm.pdf(model.threshold)
    assert 0.5 * accuracies.std(axis=1, ddof=1).mean() < spread
    assert spread < accuracies.std(axis=1, ddof=1).mean()


def test_the_tests_are_those_of_textbooks() -> None:
    rng = np.random.default_rng(2)
    for _ in range(40):
        d = MODEL.draw(rng, 3, 50)
        images, seeds, both, bound = run_tests(d)
        margins = d.sum(axis=0)
        z = margins.sum() / np.sqrt((margins**2).sum())
        assert images == (2 * stats.norm.sf(abs(z)) < LEVEL)
        assert seeds == (stats.ttest_1samp(d.mean(axis=1), 0).pvalue < LEVEL)
        p = estimate_difference(d).p
        assert both == (p is not None and p < LEVEL)
        assert not bound or seeds
        won, lost = (d[0] > 0).sum(), (d[0] < 0).sum()
        exact = stats.binomtest(int(won), int(won + lost)).pvalue if won + lost else 1.0
        assert run_tests(d[:1]) == [exact < LEVEL, None, None, None]


def test_the_script_prints_both_tables(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--results", str(PUBLISHED), "--repetitions", "3"])
    lines = capsys.readouterr().out.splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    images_only = {row[0]: row[4] for row in rows if row[2:3] == ["1"]}
    assert images_only["digits, autoattack"] == "15.5"
    assert images_only["digits-first-300, autoattack"] == "25.0"
    assert images_only["cifar10-first-1000, cw"] == "19.4"
    modelled = [row for row in rows if row[0] in MODELS]
    assert len(modelled) == len(MODELS) * len(NUM_IMAGES) * len(NUM_SEEDS)
