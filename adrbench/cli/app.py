"""The command line: parse, call, print.

Results go to stdout, everything else to stderr. This is the only file that exits the process:
0 done, 1 an error the user can act on, 2 usage, 130 interrupted, 143 terminated.
"""

import functools
import io
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, TypeVar

import typer

from adrbench.cli.notes import complain, notes_on_stderr
from adrbench.errors import AdrbenchError, unknown_name
from adrbench.runtime.signals import SIGNALS
from adrbench.runtime.torchrun import is_launched

app = typer.Typer(
    help="Train adversarially robust image classifiers with ADR and its baselines, attack them "
    "with PGD and AutoAttack, and report them beside RobustBench.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

logger = logging.getLogger(__name__)
F = TypeVar("F", bound=Callable[..., Any])
#: The exit code of a program that a signal ended is this and the signal's number.
SIGNALLED = 128


def exits(command: F) -> F:
    """Turn what a user can cause into one `error:` line and the right exit code."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            with notes_on_stderr():
                return command(*args, **kwargs)
        except AdrbenchError as error:
            if not error.is_reported:
                complain(str(error))
            raise typer.Exit(error.exit_code) from error
        except BrokenPipeError:
            raise
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            complain(f"{where}{error.strerror or error}; check the path, its rights and the disk.")
            raise typer.Exit(AdrbenchError.exit_code) from error
        except KeyboardInterrupt as interruption:
            number = getattr(interruption, "number", signal.SIGINT)
            if not getattr(interruption, "is_reported", False):
                complain(describe_stop(getattr(interruption, "where", ""), kwargs.get("force")))
            raise typer.Exit(SIGNALLED + number) from None

    return wrapped  # type: ignore[return-value]


def describe_stop(where: str, force: bool | None) -> str:
    """Return what an interrupted user may want to know: what is kept, and how to go on."""
    without = " without --force" if force else ""
    if where:
        return f"interrupted: {where}; the same command{without} goes on from there."
    return f"interrupted: whatever was saved is kept; give the same command{without} again."


def leave(number: int, frame: FrameType | None) -> None:
    """End at once: what a signal does before a command listens to it (see `stopping`).

    Raising an exception instead could hit the import of a library, which then fails in odd ways.
    """
    complain(describe_stop("", None))
    os._exit(SIGNALLED + number)


def version(wanted: bool) -> None:
    """Print the version and stop."""
    if wanted:
        from adrbench import __version__

        typer.echo(f"adrbench {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Hold the options of the program itself."""


Option = typer.Option
DataDir = Annotated[Path, Option(help="Where CIFAR and TinyImageNet lie or are downloaded to.")]
Device = Annotated[str, Option(help="auto, cpu, cuda or cuda:K.")]
Number = float | None
Text = str | None


@app.command()
@exits
def train(
    dataset: Annotated[
        str,
        typer.Argument(
            help="digits, cifar10, cifar100, tiny-imagenet, an .npz file or an image folder."
        ),
    ],
    method: Annotated[
        str,
        Option(
            help="Tokens joined by +: at, trades or standard; adr, wa, awp. See `list methods`."
        ),
    ] = "adr+wa+awp",
    arch: Annotated[
        Text,
        Option(
            help="small-cnn, resnet18, preact-resnet18 or wrn-D-K.",
            show_default="small-cnn for digits, else resnet18",
        ),
    ] = None,
    activation: Annotated[str, Option(help="relu or silu.")] = "relu",
    name: Annotated[
        Text,
        Option(help="Name of the run.", show_default="dataset-arch-method-seedK"),
    ] = None,
    out: Annotated[Path, Option(help="Where run directories go.")] = Path("checkpoints"),
    results: Annotated[Path, Option(help="Where the record goes.")] = Path("results"),
    data_dir: DataDir = Path("data"),
    epochs: Annotated[int | None, Option(help="Epochs.", show_default="preset")] = None,
    batch_size: Annotated[
        int | None, Option(help="Images per step.", show_default="preset")
    ] = None,
    lr: Annotated[Number, Option(help="Learning rate at the start.", show_default="preset")] = None,
    milestones: Annotated[
        Text,
        Option(
            help="Fractions of the run after which the rate falls, such as 0.5,0.75; '' for none.",
            show_default="preset",
        ),
    ] = None,
    lr_factor: Annotated[
        Number, Option(help="What the rate is multiplied by there.", show_default="preset")
    ] = None,
    momentum: Annotated[Number, Option(help="SGD momentum.", show_default="preset")] = None,
    nesterov: Annotated[bool | None, Option(help="Nesterov SGD.", show_default="preset")] = None,
    weight_decay: Annotated[Number, Option(help="Weight decay.", show_default="preset")] = None,
    norm: Annotated[str, Option(help="Linf or L2.")] = "Linf",
    eps: Annotated[Text, Option(help="Radius: 8/255 or 0.0314.", show_default="preset")] = None,
    alpha: Annotated[Text, Option(help="Attack step: 2/255.", show_default="preset")] = None,
    steps: Annotated[
        int | None, Option(help="Attack steps while training.", show_default="preset")
    ] = None,
    crop_padding: Annotated[
        int | None, Option(help="Random crop: zero padding in pixels.", show_default="preset")
    ] = None,
    flip: Annotated[
        bool | None, Option(help="Random horizontal flip.", show_default="preset")
    ] = None,
    temperature_high: Annotated[
        Number, Option(help="ADR: temperature at the start.", show_default="preset")
    ] = None,
    temperature_low: Annotated[
        Number, Option(help="ADR: temperature at the end.", show_default="preset")
    ] = None,
    interpolation_low: Annotated[
        Number, Option(help="ADR: lambda at the start.", show_default="preset")
    ] = None,
    interpolation_high: Annotated[
        Number, Option(help="ADR: lambda at the end.", show_default="preset")
    ] = None,
    ema_decay: Annotated[
        Number, Option(help="ADR, WA: decay of the average per step.", show_default="preset")
    ] = None,
    awp_rho: Annotated[
        Number, Option(help="AWP: size of the weight perturbation.", show_default="preset")
    ] = None,
    beta: Annotated[
        Number, Option(help="TRADES: weight of the consistency term.", show_default="preset")
    ] = None,
    crafting_mode: Annotated[
        str, Option(help="BatchNorm while crafting: train (published) or eval.")
    ] = "train",
    val_size: Annotated[
        int | None,
        Option(
            help="Training images held out to choose the best epoch.",
            show_default="1,000, or 10 % of a small set",
        ),
    ] = None,
    select: Annotated[
        str, Option(help="Split that chooses the best epoch: val, or test as was published.")
    ] = "val",
    seed: Annotated[int, Option(help="Seed of everything random.")] = 0,
    precision: Annotated[str, Option(help="float32 or bfloat16.")] = "float32",
    sync_batch_norm: Annotated[
        bool,
        Option("--sync-batch-norm", help="With torchrun on GPUs: BatchNorm over the whole batch."),
    ] = False,
    save_minutes: Annotated[
        float, Option(help="How often to save within an epoch; each epoch is saved anyway.")
    ] = 5,
    device: Device = "auto",
    force: Annotated[bool, Option("--force", help="Start over, replacing the run.")] = False,
) -> None:
    """Train a model, or go on with a run that was stopped."""
    given = dict(locals())
    from adrbench.cli.commands import train_command

    train_command(given)


@app.command()
@exits
def attack(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="TARGET...",
            help="Run directories (best and last are attacked), checkpoints, state dicts from "
            "elsewhere (with --arch and --dataset), robustbench:NAME (with --dataset).",
        ),
    ],
    suite: Annotated[
        str,
        Option(
            help="fgsm, pgd, pgd-K, cw, apgd-ce, apgd-t, fab-t, square, autoattack, "
            "autoattack-plus or autoattack-rand."
        ),
    ] = "autoattack",
    weights: Annotated[
        Text,
        Option(help="student, average or both.", show_default="what the method deploys"),
    ] = None,
    n: Annotated[
        int | None, Option("--n", help="The first n test images.", show_default="all")
    ] = None,
    norm: Annotated[Text, Option(help="Linf or L2.", show_default="as trained, else Linf")] = None,
    eps: Annotated[
        Text, Option(help="Radius: 8/255.", show_default="as trained, else 8/255 or 0.5 (L2)")
    ] = None,
    alpha: Annotated[Text, Option(help="PGD suites: step size.", show_default="eps/4")] = None,
    restarts: Annotated[int, Option(help="PGD suites: random restarts.")] = 1,
    batch_size: Annotated[int, Option(help="Images at a time.")] = 250,
    seed: Annotated[int, Option(help="Seed of the attacks.")] = 0,
    dataset: Annotated[
        Text, Option(help="Data set to attack on.", show_default="as trained")
    ] = None,
    arch: Annotated[Text, Option(help="Architecture of a state dict from elsewhere.")] = None,
    activation: Annotated[
        Text, Option(help="Its activation: relu or silu.", show_default="relu")
    ] = None,
    normalize: Annotated[
        Text,
        Option(help="Normalisation outside of it: cifar10, cifar100, tiny-imagenet or none."),
    ] = None,
    data_dir: DataDir = Path("data"),
    zoo_dir: Annotated[Path, Option(help="Where RobustBench keeps its weights.")] = Path("models"),
    out: Annotated[Path, Option(help="Where records go.")] = Path("results"),
    device: Device = "auto",
    force: Annotated[bool, Option("--force", help="Redo finished evaluations.")] = False,
) -> None:
    """Attack trained models and record how many images stand."""
    given = dict(locals())
    from adrbench.cli.commands import attack_command

    attack_command(given)


@app.command()
@exits
def report(
    results: Annotated[list[Path], typer.Argument(help="Directories of result files.")],
    form: Annotated[
        str, Option("--format", help="terminal, markdown, csv, json or latex.")
    ] = "terminal",
    baselines: Annotated[
        bool, Option(help="Show RobustBench's and the paper's rows beside ours.")
    ] = True,
    intervals: Annotated[bool, Option("--intervals", help="Show 95 % Wilson intervals.")] = False,
) -> None:
    """Print the tables of results: robust accuracy, robust overfitting, methods beside at, cost."""
    from adrbench.report import FORMATS, build_report, render
    from adrbench.results.records import Skipped, read_records

    if form not in FORMATS:
        raise unknown_name("format", form, FORMATS)
    skipped = Skipped()
    try:
        records = [record for directory in results for record in read_records(directory, skipped)]
    finally:
        for reason in skipped.reasons.values():
            logger.info(f"left out: {reason}")
    built = build_report(records, baselines=baselines, intervals=intervals)
    is_terminal = form == "terminal" and sys.stdout.isatty()
    typer.echo(render(built, form, color=is_terminal), nl=False)


@app.command(name="list")
@exits
def list_(
    what: Annotated[
        Text, typer.Argument(help="datasets, archs, methods, suites or baselines; all if left out.")
    ] = None,
) -> None:
    """List what exists, a line each."""
    from adrbench.cli.list import list_command

    list_command(what)


def main() -> None:
    """Run the program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    heeded = [n for n in SIGNALS if signal.getsignal(n) is not signal.SIG_IGN]
    for number in heeded:
        signal.signal(number, leave)
    try:
        app(prog_name="adrbench")
    except SystemExit as ending:
        if is_launched() and "torch" in sys.modules:
            # Threads that connect processes, taken down with the interpreter, abort it now
            # and then (torch 2.15, gloo).
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(ending.code if isinstance(ending.code, int) else 0)
        raise
    finally:
        # What it came to is decided and said; the rest is Python's own end.
        for number in heeded:
            signal.signal(number, signal.SIG_IGN)
