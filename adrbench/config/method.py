"""The vocabulary of methods: tokens joined by `+`, and their one canonical spelling.

A method fills four slots: an objective, targets, a perturbation and an averaging. This module
only names them, so that the report and `--help` can speak of methods without importing torch;
`adrbench.methods` builds what the names stand for.
"""

from dataclasses import dataclass
from typing import Literal

from adrbench.errors import UsageError, unknown_name

Slot = Literal["objective", "targets", "averaging", "perturbation"]
Weights = Literal["student", "average"]
WEIGHTS: tuple[Weights, ...] = ("student", "average")
DEFAULT_OBJECTIVE = "at"

TOKENS: dict[str, tuple[Slot, str]] = {
    "standard": ("objective", "cross-entropy on clean images; no attack while training"),
    "at": ("objective", "PGD adversarial training (Madry et al. 2018); the default objective"),
    "trades": (
        "objective",
        "clean cross-entropy + beta KL(clean || adversarial) (Zhang et al. 2019)",
    ),
    "adr": ("targets", "annealed self-distilled soft labels (Wu et al., ICLR 2024)"),
    "wa": ("averaging", "validate and deploy the averaged (EMA) weights"),
    "awp": ("perturbation", "adversarial weight perturbation (Wu et al. 2020)"),
}


@dataclass(frozen=True, kw_only=True)
class Method:
    """Which token fills each slot. `str(method)` is the canonical spelling."""

    objective: str = DEFAULT_OBJECTIVE
    adr: bool = False
    wa: bool = False
    awp: bool = False

    def __str__(self) -> str:
        implied = self.objective == DEFAULT_OBJECTIVE and self.adr
        switches = {"adr": self.adr, "wa": self.wa, "awp": self.awp}
        tokens = [] if implied else [self.objective]
        return "+".join(tokens + [token for token, on in switches.items() if on])

    @property
    def averages(self) -> bool:
        """Whether an EMA of the weights exists: as ADR's teacher, or to be deployed."""
        return self.adr or self.wa

    @property
    def deployed(self) -> Weights:
        """The weights that are validated and attacked by default."""
        return "average" if self.wa else "student"

    def row(self, weights: str) -> str:
        """Return the method that `weights` of this run stand for in a table.

        One `adr` run serves two rows: its student is "adr", its average "adr+wa".
        """
        if weights not in WEIGHTS:
            return str(self)
        is_average = weights == "average"
        return str(Method(objective=self.objective, adr=self.adr, wa=is_average, awp=self.awp))


def parse_method(spelling: str) -> Method:
    """Parse tokens joined by `+`, in any order.

    Raises:
        UsageError: for an unknown or repeated token, or two objectives.

    """
    tokens = [token.strip().lower() for token in spelling.split("+")]
    for token in tokens:
        if token not in TOKENS:
            raise unknown_name("method token", token, TOKENS)
        if tokens.count(token) > 1:
            raise UsageError(f"method {spelling!r} names {token!r} twice: name each token once.")
    objectives = [token for token in tokens if TOKENS[token][0] == "objective"]
    if len(objectives) > 1:
        raise UsageError(
            f"method {spelling!r} has two objectives, {' and '.join(objectives)}: keep one of them."
        )
    return Method(
        objective=objectives[0] if objectives else DEFAULT_OBJECTIVE,
        adr="adr" in tokens,
        wa="wa" in tokens,
        awp="awp" in tokens,
    )
