"""The studies behind the published tables, each with its runs and attacks, as data."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from adrbench.config.method import parse_method
from adrbench.config.presets import adr, find_preset

#: Settings that are not those of the preset.
Settings = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Subset:
    """Ranges (first, end) of images of `source`, in its order.

    Training and validation images are from the training part, test images from the test part.
    `sha256` are those of the three parts, from `adrbench.data.Images.sha256`.
    """

    source: str = "cifar10"
    train: tuple[tuple[int, int], ...]
    val: tuple[tuple[int, int], ...]
    test: tuple[tuple[int, int], ...]
    sha256: tuple[str, str, str]


@dataclass(frozen=True, kw_only=True)
class Training:
    """One run on a built-in data set, one of SUBSETS, or a folder in the data directory.

    `label` distinguishes runs of the same method with other settings.
    """

    dataset: str
    arch: str
    method: str
    seed: int
    settings: Settings
    label: str = ""

    @property
    def run(self) -> str:
        """The name of the run and its directory."""
        return self._name(self.label or self.arch)

    @property
    def kept_run(self) -> str:
        """The run name of its kept weights."""
        return self._name(f"{self.label}-float16" if self.label else "float16")

    @property
    def all_settings(self) -> Settings:
        """All settings that are not those of the preset."""
        return {"arch": self.arch, "method": self.method, "seed": self.seed, **self.settings}

    def _name(self, middle: str) -> str:
        return f"{self.dataset}-{middle}-{self.method}-seed{self.seed}"


@dataclass(frozen=True, kw_only=True)
class Attack:
    """A suite on the first `n` test images; None means all.

    It attacks the given checkpoints and `weights`, None meaning all weights of the run. It applies
    to runs of the given `methods`, or of all methods if there are none. With `outputs`, the outputs
    of the model on all images are kept.
    """

    suite: str
    n: int | None = None
    checkpoints: tuple[str, ...] = ("best", "last")
    weights: str | None = None
    methods: tuple[str, ...] = ()
    outputs: bool = False

    def applies_to(self, training: Training) -> bool:
        """Return whether `training` is attacked this way."""
        return not self.methods or training.method in self.methods


@dataclass(frozen=True, kw_only=True)
class Study:
    """Runs on one data set, and the attacks on each.

    `kept` are runs whose best averaged weights are kept, in half precision, and attacked by the
    first of the attacks. The labels of runs that are `inspected` are recorded at their best epoch.
    Studies that need a GPU run only when they are named.
    """

    summary: str
    trainings: tuple[Training, ...]
    attacks: tuple[Attack, ...]
    kept: tuple[Training, ...] = ()
    inspected: tuple[Training, ...] = ()
    needs_gpu: bool = False


Trainings = tuple[Training, ...]


def cross(
    dataset: str,
    arch: str,
    *,
    methods: Iterable[str],
    seeds: Iterable[int],
    label: str = "",
    **settings: Any,
) -> Trainings:
    """Return a run for each seed and method, all methods of one seed before the next seed."""
    return tuple(
        Training(
            dataset=dataset, arch=arch, method=method, seed=seed, settings=settings, label=label
        )
        for seed in seeds
        for method in methods
    )


def select(trainings: Iterable[Training], *, method: str, seed: int) -> Trainings:
    """Return the runs of one method and seed."""
    return tuple(one for one in trainings if (one.method, one.seed) == (method, seed))


#: The first image of each of CIFAR-10's five training files.
CIFAR10_FILE_STARTS = range(0, 50_000, 10_000)

#: Validation images are other images of the training part. With 1,000 images of CIFAR-10,
#: adversarial training overfits within 100 short epochs; with 4,500 (the first 900 of each file)
#: it does not.
SUBSETS = {
    "cifar10-first-1000": Subset(
        train=((0, 1_000),),
        val=((10_000, 10_500),),
        test=((0, 1_017),),
        sha256=(
            "a1dcd33eb45650693fe537ba12e95afe679e9d21a6bbc2d978cc7646118b4f49",
            "f2233b1942972345d49e0f7321a8a42f29e3f2ad4c348fb5b28796b0f46d4212",
            "b807f7d214f5d898217d01ae934dd86d13ccbfc09038f3758349edb4db8346a7",
        ),
    ),
    "cifar10-first-4500": Subset(
        train=tuple((first, first + 900) for first in CIFAR10_FILE_STARTS),
        val=tuple((first + 900, first + 1_000) for first in CIFAR10_FILE_STARTS),
        test=((0, 1_017),),
        sha256=(
            "458d3262414b73ee12661c082663ea857650e209d983fad4cdcbe19e908711aa",
            "93eebc61cc3b09e1f900410fd09b031620d3b46112219f9727a5312a52ba6168",
            "b807f7d214f5d898217d01ae934dd86d13ccbfc09038f3758349edb4db8346a7",
        ),
    ),
    "digits-first-300": Subset(
        source="digits",
        train=((0, 300),),
        val=((937, 1_437),),
        test=((0, 360),),
        sha256=(
            "edda7ae38038c7739440b81fe01e3c00085f677d85a93192de47700df7de09d3",
            "f177fd4263b33ec508df485492228320c03960f00f1baa6e4aa4896d2cc9cbcb",
            "f2ea6cb655e78c037c6459290749cc0556bba959b70291aead1aa464b87b76c6",
        ),
    ),
}
FIRST_1000 = "cifar10-first-1000"
JPEG = "CIFAR-10-JPEG"

#: A run with averaging serves two rows, since averaging does not change the student.
DIGITS_METHODS = ("at+wa", "at+awp", "adr+wa", "adr+wa+awp", "trades", "trades+adr+wa")
GPU_METHODS = ("at", "adr+wa", "adr+wa+awp", "trades+adr+wa")
COMPARED_METHODS = ("at+wa", "adr+wa")
THREE_SEEDS = range(3)

#: A CPU-sized training: half of the published attack steps, of 1.5 times the size, 100 epochs.
on_cifar10 = partial(
    cross, arch="wrn-10-2", epochs=100, precision="bfloat16", steps=5, alpha=3 / 255
)
on_digits = partial(cross, "digits", "small-cnn", precision="float32")
on_1000 = partial(on_cifar10, FIRST_1000)


def on_4500(*methods: str, label: str, **settings: Any) -> Trainings:
    """Return runs of a small network on 4,500 images of CIFAR-10, 20 epochs, with `settings`."""
    values = {"epochs": 20, "steps": 5, "alpha": 3 / 255, "precision": "float32", **settings}
    dataset, arch = "cifar10-first-4500", "small-cnn"
    return cross(dataset, arch, methods=methods, seeds=THREE_SEEDS, label=label, **values)


def on_300_digits(method: str, label: str = "", **settings: Any) -> Trainings:
    """Return runs on 300 digits with the preset of all digits, 120 epochs, and `settings`."""
    preset = find_preset("digits", "small-cnn", parse_method(method), num_train=300).values
    values = {**preset, "epochs": 120, "precision": "float32", **settings}
    dataset, arch = "digits-first-300", "small-cnn"
    return cross(dataset, arch, methods=(method,), seeds=THREE_SEEDS, label=label, **values)


DIGITS = on_digits(methods=DIGITS_METHODS, seeds=range(5))
ON_1000 = (
    *on_1000(methods=COMPARED_METHODS, seeds=THREE_SEEDS),
    *on_1000(methods=("adr+wa+awp",), seeds=THREE_SEEDS),
)
#: On full CIFAR-10, 15 % of the published schedule; its milestones are fractions of the run.
FULL_CIFAR10 = cross(
    JPEG, "resnet18", methods=GPU_METHODS, seeds=(0,), epochs=30, precision="bfloat16"
)
PGD, MARGIN = Attack(suite="pgd-20"), Attack(suite="cw")
PGD_OUTPUTS = replace(PGD, weights="average", outputs=True)
AUTOATTACK_LAST = Attack(suite="autoattack", checkpoints=("last",))
#: AutoAttack on 200 images takes minutes per set of weights on one core.
AUTOATTACK_200 = Attack(suite="autoattack", n=200, checkpoints=("best",))
#: For every average and the students of COMPARED_METHODS: that of `at+wa` is the row `at`.
AUTOATTACK_ON_FEW = (
    replace(AUTOATTACK_200, weights="average"),
    replace(AUTOATTACK_200, weights="student", methods=COMPARED_METHODS),
)
#: ADR's settings for the digits, and with smaller interpolation factors.
SHARP, LESS_LAMBDA = adr((1.0, 0.7), (0.30, 0.90)), adr((1.0, 0.7), (0.10, 0.50))

of_adr = partial(on_digits, methods=("adr+wa",), seeds=THREE_SEEDS)

DIGITS_OUTPUTS = on_digits(methods=COMPARED_METHODS, seeds=THREE_SEEDS, label="outputs")
CIFAR10_OUTPUTS = (
    *on_4500(*COMPARED_METHODS, label="outputs"),
    *on_4500("adr+wa", label="outputs-sharper", **SHARP),
)

STUDIES = {
    "digits": Study(
        summary="scikit-learn's 8x8 digits: all methods, five seeds, AutoAttack on all test images",
        trainings=DIGITS,
        attacks=(PGD, Attack(suite="autoattack")),
        kept=select(DIGITS, method="adr+wa", seed=0),
    ),
    FIRST_1000: Study(
        summary="1,000 images of CIFAR-10, on which adversarial training overfits; three seeds",
        trainings=ON_1000,
        attacks=(PGD, MARGIN, *AUTOATTACK_ON_FEW),
        kept=select(ON_1000, method="adr+wa", seed=0),
    ),
    "digits-why": Study(
        summary="ADR on the digits with other temperatures, lambdas and epochs; three seeds",
        trainings=(
            *of_adr(label="softer", **adr((2.5, 2.0), (0.30, 0.90))),
            *of_adr(label="more-lambda", **adr((1.0, 0.7), (0.70, 0.95))),
            *of_adr(label="less-lambda", **LESS_LAMBDA),
            *on_digits(methods=COMPARED_METHODS, seeds=THREE_SEEDS, label="longer", epochs=120),
            *of_adr(label="longer-less-lambda", epochs=120, **LESS_LAMBDA),
        ),
        attacks=(
            PGD,
            replace(AUTOATTACK_LAST, weights="average"),
            replace(AUTOATTACK_LAST, weights="student", methods=("at+wa",)),
        ),
    ),
    "digits-first-300": Study(
        summary="ADR with a quarter of the digits and four times the epochs; three seeds",
        trainings=(
            *on_300_digits("at+wa"),
            *on_300_digits("adr+wa"),
            *on_300_digits("adr+wa", "less-lambda", **LESS_LAMBDA),
        ),
        attacks=(PGD, Attack(suite="autoattack")),
    ),
    "cifar10-why": Study(
        summary="ADR on 1,000 images of CIFAR-10 with labels as sharp as those for the digits",
        trainings=on_1000(methods=("adr+wa",), seeds=(0,), label="sharper", **SHARP),
        attacks=(PGD, MARGIN, replace(AUTOATTACK_200, weights="average")),
    ),
    # 23 epochs of 70 whole batches are 1,610 steps; 100 of 15, as on 1,000 images, are 1,500.
    "cifar10-first-4500": Study(
        summary="ADR with 4.5 times the images and about as many steps; three seeds",
        trainings=on_cifar10(
            "cifar10-first-4500", methods=COMPARED_METHODS, seeds=THREE_SEEDS, epochs=23
        ),
        attacks=(PGD, MARGIN, *AUTOATTACK_ON_FEW),
    ),
    "digits-calibration": Study(
        summary="are the outputs calibrated, and do attacks change them? the digits, three seeds",
        trainings=DIGITS_OUTPUTS,
        attacks=(PGD_OUTPUTS,),
        inspected=select(DIGITS_OUTPUTS, method="adr+wa", seed=0),
    ),
    "cifar10-calibration": Study(
        summary="the same with 4,500 images of CIFAR-10, also with labels as sharp as the digits'",
        trainings=CIFAR10_OUTPUTS,
        attacks=(PGD_OUTPUTS,),
        inspected=select(CIFAR10_OUTPUTS, method="adr+wa", seed=0),
    ),
    "cifar10-jpeg": Study(
        summary="all of CIFAR-10 as JPEG files, 30 of the published 200 epochs; needs a GPU",
        trainings=FULL_CIFAR10,
        attacks=(PGD, MARGIN, Attack(suite="autoattack", n=1_000)),
        kept=select(FULL_CIFAR10, method="adr+wa+awp", seed=0),
        needs_gpu=True,
    ),
}
