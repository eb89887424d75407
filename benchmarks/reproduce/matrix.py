"""What the published tables are made of: studies, each with its runs and attacks, as data."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from adrbench.config.method import parse_method
from adrbench.config.presets import adr, find_preset

#: Everything but these is as `adrbench train` has it from its presets.
Settings = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A data set of one's own, cut from `source`: ranges (first, end) of images in its order.

    Training and validation images are cut from the training part, test images from the test part.
    `sha256` are those of the three parts, as `adrbench.data.Images.sha256` has them.
    """

    source: str = "cifar10"
    train: tuple[tuple[int, int], ...]
    val: tuple[tuple[int, int], ...]
    test: tuple[tuple[int, int], ...]
    sha256: tuple[str, str, str]


@dataclass(frozen=True, kw_only=True)
class Training:
    """One run on a data set of adrbench's table, of CUTS, or a folder within the data directory.

    `label` tells it from runs of the same method with other settings.
    """

    dataset: str
    arch: str
    method: str
    seed: int
    settings: Settings
    label: str = ""

    @property
    def run(self) -> str:
        """The name of the run, and of its directory."""
        return self._name(self.label or self.arch)

    @property
    def kept_as(self) -> str:
        """The name of what is kept of it."""
        return self._name(f"{self.label}-float16" if self.label else "float16")

    @property
    def all_settings(self) -> Settings:
        """Everything that is not left to the presets."""
        return {"arch": self.arch, "method": self.method, "seed": self.seed, **self.settings}

    def _name(self, middle: str) -> str:
        return f"{self.dataset}-{middle}-{self.method}-seed{self.seed}"


@dataclass(frozen=True, kw_only=True)
class Attack:
    """A suite on the first `n` test images, None for all.

    It attacks the checkpoints that are named, with the `weights` that are: None for all there are.
    Without `methods` it is for runs of every method.
    """

    suite: str
    n: int | None = None
    checkpoints: tuple[str, ...] = ("best", "last")
    weights: str | None = None
    methods: tuple[str, ...] = ()

    def concerns(self, training: Training) -> bool:
        """Tell whether `training` is attacked so."""
        return not self.methods or training.method in self.methods


@dataclass(frozen=True, kw_only=True)
class Study:
    """Runs on one data set, and what is done to the best and last weights of each.

    `kept` are runs whose best averaged weights are kept, in half precision, and attacked by the
    first of the attacks. Studies for a GPU are run when they are named.
    """

    about: str
    trainings: tuple[Training, ...]
    attacks: tuple[Attack, ...]
    kept: tuple[Training, ...] = ()
    needs_gpu: bool = False


Trainings = tuple[Training, ...]


def cross(
    dataset: str,
    arch: str,
    *,
    methods: Iterable[str],
    seeds: Iterable[int],
    settings: Settings,
    label: str = "",
) -> Trainings:
    """Return a run for each seed and method: what is there after an interruption is comparable."""
    return tuple(
        Training(
            dataset=dataset, arch=arch, method=method, seed=seed, settings=settings, label=label
        )
        for seed in seeds
        for method in methods
    )


def choose(trainings: Iterable[Training], *, method: str, seed: int) -> Trainings:
    """Return the runs of one method and seed."""
    return tuple(one for one in trainings if (one.method, one.seed) == (method, seed))


#: Where each of CIFAR-10's five training files begins.
CIFAR10_FILES = range(0, 50_000, 10_000)

#: Images that choose the best epoch are others of the training part. 1,000 images of CIFAR-10
#: are few enough for adversarial training to overfit within 100 short epochs; 4,500, of which each
#: file has the first 900, are not.
CUTS = {
    "cifar10-first-1000": Cut(
        train=((0, 1_000),),
        val=((10_000, 10_500),),
        test=((0, 1_017),),
        sha256=(
            "a1dcd33eb45650693fe537ba12e95afe679e9d21a6bbc2d978cc7646118b4f49",
            "f2233b1942972345d49e0f7321a8a42f29e3f2ad4c348fb5b28796b0f46d4212",
            "b807f7d214f5d898217d01ae934dd86d13ccbfc09038f3758349edb4db8346a7",
        ),
    ),
    "cifar10-first-4500": Cut(
        train=tuple((first, first + 900) for first in CIFAR10_FILES),
        val=tuple((first + 900, first + 1_000) for first in CIFAR10_FILES),
        test=((0, 1_017),),
        sha256=(
            "458d3262414b73ee12661c082663ea857650e209d983fad4cdcbe19e908711aa",
            "93eebc61cc3b09e1f900410fd09b031620d3b46112219f9727a5312a52ba6168",
            "b807f7d214f5d898217d01ae934dd86d13ccbfc09038f3758349edb4db8346a7",
        ),
    ),
    "digits-first-300": Cut(
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
JPEG = "CIFAR-10-JPEG"

#: One run with averaging serves two rows: its student trains as it would without.
ON_DIGITS = ("at+wa", "at+awp", "adr+wa", "adr+wa+awp", "trades", "trades+adr+wa")
ON_GPU = ("at", "adr+wa", "adr+wa+awp", "trades+adr+wa")
COMPARED = ("at+wa", "adr+wa")

#: Half of the published attack's steps, each half as long again, so that a CPU can do 100 epochs.
SMALL = {"epochs": 100, "precision": "bfloat16", "steps": 5, "alpha": 3 / 255}
#: 15 % of the published schedule; its milestones are fractions of the run.
SHORTENED = {"epochs": 30, "precision": "bfloat16"}


def on_digits(methods: Iterable[str], seeds: int, label: str = "", **settings: Any) -> Trainings:
    """Return runs on the digits with the first `seeds` seeds."""
    return cross(
        "digits", "small-cnn", methods=methods, seeds=range(seeds), settings=settings, label=label
    )


def on_300_digits(
    methods: Iterable[str], seeds: int, label: str = "", **settings: Any
) -> Trainings:
    """Return runs on 300 digits with all the digits' preset but for `settings` and 120 epochs."""
    runs: list[Training] = []
    for method in methods:
        preset = find_preset("digits", "small-cnn", parse_method(method), num_train=300).values
        runs += cross(
            "digits-first-300",
            "small-cnn",
            methods=(method,),
            seeds=range(seeds),
            settings={**preset, "epochs": 120, **settings},
            label=label,
        )
    return tuple(runs)


def on_cifar10(
    dataset: str, methods: Iterable[str], seeds: int, label: str = "", **settings: Any
) -> Trainings:
    """Return runs on a cut of CIFAR-10 with the first `seeds` seeds, SMALL otherwise."""
    return cross(
        dataset,
        "wrn-10-2",
        methods=methods,
        seeds=range(seeds),
        settings={**SMALL, **settings},
        label=label,
    )


DIGITS = on_digits(ON_DIGITS, 5)
FIRST_1000 = "cifar10-first-1000"
ON_1000 = (*on_cifar10(FIRST_1000, COMPARED, 3), *on_cifar10(FIRST_1000, ("adr+wa+awp",), 3))
ALL = cross(JPEG, "resnet18", methods=ON_GPU, seeds=range(1), settings=SHORTENED)
PGD, MARGIN = Attack(suite="pgd-20"), Attack(suite="cw")
AT_LAST = Attack(suite="autoattack", checkpoints=("last",))
#: AutoAttack takes minutes for 200 images and a set of weights on a core.
FEW = Attack(suite="autoattack", n=200, checkpoints=("best",))
#: It attacks every average, and the students of COMPARED: that of `at+wa` is the row `at`.
ON_FEW = (
    replace(FEW, weights="average"),
    replace(FEW, weights="student", methods=COMPARED),
)
#: ADR's numbers for the digits, and with less of the soft labels.
SHARP, LESS_LAMBDA = adr((1.0, 0.7), (0.30, 0.90)), adr((1.0, 0.7), (0.10, 0.50))

STUDIES = {
    "digits": Study(
        about="scikit-learn's 8x8 digits: all methods, five seeds, AutoAttack on all test images",
        trainings=DIGITS,
        attacks=(PGD, Attack(suite="autoattack")),
        kept=choose(DIGITS, method="adr+wa", seed=0),
    ),
    FIRST_1000: Study(
        about="1,000 images of CIFAR-10, on which adversarial training overfits; three seeds",
        trainings=ON_1000,
        attacks=(PGD, MARGIN, *ON_FEW),
        kept=choose(ON_1000, method="adr+wa", seed=0),
    ),
    "digits-why": Study(
        about="what temperature, lambda and epochs do to ADR on the digits; three seeds",
        trainings=(
            *on_digits(("adr+wa",), 3, "softer", **adr((2.5, 2.0), (0.30, 0.90))),
            *on_digits(("adr+wa",), 3, "more-lambda", **adr((1.0, 0.7), (0.70, 0.95))),
            *on_digits(("adr+wa",), 3, "less-lambda", **LESS_LAMBDA),
            *on_digits(COMPARED, 3, "longer", epochs=120),
            *on_digits(("adr+wa",), 3, "longer-less-lambda", epochs=120, **LESS_LAMBDA),
        ),
        attacks=(
            PGD,
            replace(AT_LAST, weights="average"),
            replace(AT_LAST, weights="student", methods=("at+wa",)),
        ),
    ),
    "digits-first-300": Study(
        about="what ADR does with a quarter of the digits, in four times the epochs; three seeds",
        trainings=(
            *on_300_digits(COMPARED, 3),
            *on_300_digits(("adr+wa",), 3, "less-lambda", **LESS_LAMBDA),
        ),
        attacks=(PGD, Attack(suite="autoattack")),
    ),
    "cifar10-why": Study(
        about="what labels as sharp as those for the digits do to ADR on 1,000 images of CIFAR-10",
        trainings=on_cifar10(FIRST_1000, ("adr+wa",), 1, "sharper", **SHARP),
        attacks=(PGD, MARGIN, replace(FEW, weights="average")),
    ),
    # 23 epochs of 70 whole batches are 1,610 steps; 100 of 15, as on 1,000 images, are 1,500.
    "cifar10-first-4500": Study(
        about="what ADR does with 4.5 times the images in about as many steps; three seeds",
        trainings=on_cifar10("cifar10-first-4500", COMPARED, 3, epochs=23),
        attacks=(PGD, MARGIN, *ON_FEW),
    ),
    "cifar10-jpeg": Study(
        about="all of CIFAR-10 as JPEG files, 30 of the published 200 epochs; needs a GPU",
        trainings=ALL,
        attacks=(PGD, MARGIN, Attack(suite="autoattack", n=1_000)),
        kept=choose(ALL, method="adr+wa+awp", seed=0),
        needs_gpu=True,
    ),
}
