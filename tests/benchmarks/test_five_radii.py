"""The comparison of packages at five radii: it runs, and counts lines as a reader would."""

import pytest

import adrbench
from benchmarks.five_radii import MEASURES, RADII, count_lines, in_adrbench, main, train_timm


def test_lines_are_those_of_the_body() -> None:
    assert count_lines(in_adrbench) == 3


def test_our_accuracies_fall_with_the_radius() -> None:
    x, y = adrbench.load_examples("digits", n=20)
    accuracies = in_adrbench(train_timm("resnet10t", steps=3), x, y)
    assert len(accuracies) == len(RADII)
    assert list(accuracies) == sorted(accuracies, reverse=True)


def test_only_what_is_installed_is_compared(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MEASURES, "missing", ("no_such_package", in_adrbench))
    main(n=20, steps=10, rounds=1)
    out = capsys.readouterr().out
    assert "adrbench" in out
    assert "missing" not in out
