"""The accuracy of a timm model at five radii under PGD-20: in adrbench, foolbox and adv-lib.

Each function below contains the lines that a user of that package writes; the model and the images
are given. `python -m benchmarks.five_radii` runs those whose package is installed (foolbox 3.3 and
adv-lib 0.2 were measured), and prints lines of code, seconds and accuracies. Random starts differ,
so accuracies may differ by an image or two.
"""

import ast
import inspect
import statistics
import textwrap
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F

import adrbench
from adrbench.models.architectures import build_model

RADII = (1 / 255, 2 / 255, 4 / 255, 8 / 255, 16 / 255)

#: (model, images (N, C, H, W), labels (N,)) -> the accuracy at each radius.
Measure = Callable[[nn.Module, Tensor, Tensor], Sequence[float]]


def in_adrbench(model: nn.Module, x: Tensor, y: Tensor) -> Sequence[float]:
    """Attack with `adrbench.evaluate`."""
    import adrbench

    results = adrbench.evaluate(model, x, y, suite="pgd-20", eps=RADII)
    return [result.robust_accuracy for result in results]


def in_foolbox(model: nn.Module, x: Tensor, y: Tensor) -> Sequence[float]:
    """Attack with foolbox, which takes all radii in one call."""
    import foolbox

    attacked = foolbox.PyTorchModel(model, bounds=(0, 1))
    attack = foolbox.attacks.LinfPGD(steps=20, rel_stepsize=1 / 4)
    _, _, success = attack(attacked, x, y, epsilons=RADII)
    accuracies: list[float] = (1 - success.float().mean(1)).tolist()
    return accuracies


def in_adv_lib(model: nn.Module, x: Tensor, y: Tensor) -> Sequence[float]:
    """Attack with adv-lib, a radius at a time."""
    from adv_lib.attacks import pgd_linf

    accuracies = []
    for eps in RADII:
        x_adv = pgd_linf(model, x, y, eps, steps=20, relative_step_size=1 / 4)
        with torch.no_grad():
            accuracies.append(float((model(x_adv).argmax(1) == y).float().mean()))
    return accuracies


MEASURES: dict[str, tuple[str, Measure]] = {
    "adrbench": ("adrbench", in_adrbench),
    "foolbox": ("foolbox", in_foolbox),
    "adv-lib": ("adv_lib", in_adv_lib),
}


def count_lines(measure: Measure) -> int:
    """Return the number of lines in the body of a function, without docstring and blank lines."""
    source = textwrap.dedent(inspect.getsource(measure))
    (function,) = ast.parse(source).body
    assert isinstance(function, ast.FunctionDef)
    _, first, *_ = function.body
    lines = source.splitlines()[first.lineno - 1 :]
    return sum(bool(line.strip()) for line in lines)


def train_timm(name: str, steps: int) -> nn.Module:
    """Return a timm network trained for some steps on digits with noise, in eval mode."""
    torch.manual_seed(0)
    x, y = adrbench.load_examples("digits", split="train")
    model = build_model(f"timm:{name}", num_classes=10, in_channels=1)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(steps):
        batch = torch.randint(len(x), (128,))
        noisy = (x[batch] + 0.1 * torch.randn_like(x[batch])).clamp(0, 1)
        loss = F.cross_entropy(model(noisy), y[batch])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model.eval().requires_grad_(False)


def main(name: str = "resnet10t", n: int = 64, steps: int = 60, rounds: int = 3) -> None:
    """Compare the packages that are installed."""
    model = train_timm(name, steps)
    x, y = adrbench.load_examples("digits", n=n)
    with torch.no_grad():  # adrbench does not attack the others
        is_correct = model(x).argmax(1) == y
    x, y = x[is_correct], y[is_correct]
    found = [key for key, (module, _) in MEASURES.items() if find_spec(module) is not None]
    seconds: dict[str, list[float]] = {key: [] for key in found}
    accuracies: dict[str, Sequence[float]] = {}
    for _ in range(rounds):
        for key in found:
            started = time.perf_counter()
            accuracies[key] = MEASURES[key][1](model, x, y)
            seconds[key].append(time.perf_counter() - started)
    table = Table(title=f"timm {name}, {len(x)} correctly classified digits, PGD-20, Linf")
    for column in (
        "package",
        "lines",
        "seconds",
        "ratio",
        *(f"{255 * eps:g}/255" for eps in RADII),
    ):
        table.add_column(column, justify="left" if column == "package" else "right")
    ours = statistics.median(seconds["adrbench"])
    for key in found:
        median = statistics.median(seconds[key])
        table.add_row(
            key,
            str(count_lines(MEASURES[key][1])),
            f"{median:.2f}",
            f"{median / ours:.2f}",
            *(f"{100 * value:.1f}" for value in accuracies[key]),
        )
    Console(width=100).print(table)


if __name__ == "__main__":
    typer.run(main)
