"""`adrbench attack`: parse a command line, and run its evaluations."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from adrbench.cli.options import DataDir, Device, takes_settings
from adrbench.config.declare import is_fraction, parse_fraction, settings_of
from adrbench.config.settings import AttackConfig
from adrbench.errors import UsageError


@takes_settings(settings_of(AttackConfig))
def attack(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="TARGET...",
            help="Run directories (best and last checkpoint are attacked); checkpoints; "
            "third-party state dicts (.pt, .safetensors; need --arch and --dataset); "
            "robustbench:NAME, timm:NAME or package.module:attribute, an nn.Module or a callable "
            "that returns one (need --dataset).",
        ),
    ],
    suite: Annotated[
        list[str],
        typer.Option(
            help="clean, fgsm, pgd, pgd-K, cw, apgd-ce, apgd-t, fab-t, square, autoattack, "
            "autoattack-plus, autoattack-rand, a plugin's name, or package.module:attribute; "
            "separate several by commas."
        ),
    ] = ["autoattack"],  # noqa: B006
    weights: Annotated[
        str | None,
        typer.Option(
            help="Weights to attack: student, average or both.",
            show_default="what the method deploys",
        ),
    ] = None,
    norm: Annotated[
        str | None, typer.Option(help="Linf or L2.", show_default="as trained, else Linf")
    ] = None,
    eps: Annotated[
        list[str] | None,
        typer.Option(
            help="Radius, such as 8/255; separate several by commas: 2/255,4/255,8/255.",
            show_default="as trained, else 8/255 or 0.5 (L2)",
        ),
    ] = None,
    given: Mapping[str, Any] = {},
    dataset: Annotated[
        str | None, typer.Option(help="Data set to attack the model on.", show_default="as trained")
    ] = None,
    arch: Annotated[
        str | None,
        typer.Option(
            help="Architecture of a third-party state dict, as in `train`; also needed for a run "
            "trained with --arch package.module:attribute."
        ),
    ] = None,
    activation: Annotated[
        str | None, typer.Option(help="Activation of --arch: relu or silu.", show_default="relu")
    ] = None,
    normalize: Annotated[
        str | None,
        typer.Option(
            help="Normalization to put in front of the network: cifar10, cifar100, tiny-imagenet, "
            "none, or MEAN/STD, such as 0.5,0.5,0.5/0.25,0.25,0.25."
        ),
    ] = None,
    data_dir: DataDir = Path("data"),
    zoo_dir: Annotated[Path, typer.Option(help="Directory for RobustBench's weights.")] = Path(
        "models"
    ),
    name: Annotated[
        str | None,
        typer.Option(
            help="Name of the model in records and tables.", show_default="that of the target"
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Directory for records.")] = Path("results"),
    save_adversarial: Annotated[
        Path | None,
        typer.Option(
            help="Also save the adversarial examples: FILE.npz with outcomes, or FILE.pt, the "
            "tensor that RobustBench requires.",
            show_default=False,
        ),
    ] = None,
    outputs: Annotated[
        bool,
        typer.Option(
            "--outputs",
            help="Also keep the logits on all images, clean and attacked to the end, in a file "
            "beside the record; for suites that maximize one loss.",
        ),
    ] = False,
    device: Device = "auto",
    force: Annotated[bool, typer.Option("--force", help="Repeat finished evaluations.")] = False,
) -> None:
    """Attack models and record their robust accuracy."""
    from adrbench.cli.attack_run import AttackRun
    from adrbench.evaluation.targets import TargetOptions
    from adrbench.runtime.launch import open_context

    with open_context(device) as context:
        check_targets(targets)
        radii = [parse_fraction(text, "eps") for text in split_commas(eps or [])]
        options = TargetOptions(
            weights=weights,
            dataset=dataset,
            arch=arch,
            activation=activation,
            normalize=normalize,
            norm=norm,
            eps=radii[0] if radii else None,
            name=name,
            data_dir=data_dir,
            zoo_dir=zoo_dir,
        )
        if name is not None:
            check_target_name(name, targets, out)
        run = AttackRun(
            configs=[AttackConfig(suite=one, **given) for one in split_commas(suite)],
            radii=radii,
            options=options,
            out=out,
            save_adversarial=save_adversarial,
            keep_outputs=outputs,
            force=force,
        )
        run.run(targets, context)


def check_targets(targets: Sequence[str]) -> None:
    """Raise UsageError for a target that is a further radius or suite, given without a comma."""
    from adrbench.attacks.builtin_suites import find_builtin

    for target in targets:
        meant = "eps" if is_fraction(target) else "suite" if find_builtin(target) else None
        if meant and not Path(target).exists():
            example = "2/255,8/255" if meant == "eps" else "pgd-20,autoattack"
            raise UsageError(
                f"{target} is given as a target, but there is no such file: if it is a value of "
                f"--{meant}, separate values by commas, as in --{meant} {example}."
            )


def check_target_name(name: str, targets: Sequence[str], out: Path) -> None:
    """Raise UsageError unless `name` can be that of the only target, recorded in `out`."""
    from adrbench.training.run_names import check_run_name

    if len(targets) > 1:
        raise UsageError(f"--name {name} cannot name {len(targets)} targets: give one target.")
    check_run_name(name, out)


def split_commas(texts: Sequence[str]) -> list[str]:
    """Return the values of an option that is repeated or lists several by commas, each once."""
    values = [part.strip() for text in texts for part in text.split(",")]
    return list(dict.fromkeys(filter(None, values)))
