"""Which settings of runs count when rows are compared."""

from adrbench.report.run_settings import describe_differences, shared_settings
from training_runs import make_config


def test_runs_that_differ_by_rounding_alone_are_compared_and_not_told_apart() -> None:
    off, on, other = (
        make_config("at", compile=choice, lr=lr)
        for choice, lr in (("off", 0.05), ("on", 0.05), ("on", 0.01))
    )
    assert shared_settings(off, ["at"]) == shared_settings(on, ["at"])
    assert shared_settings(off, ["at"]) != shared_settings(other, ["at"])
    assert describe_differences({"a": off, "b": other}) == {
        "a": ("settings: --lr 0.05",),
        "b": ("settings: --lr 0.01",),
    }
