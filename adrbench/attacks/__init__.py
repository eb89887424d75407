"""Attacks, and the suites that combine them.

An attack is an object with a `name` and `perturb(model, x, y, indices)`: `PGD`, `fgsm`, or
`OfficialAttack`, which is one of AutoAttack's attacks. It can be passed to `adrbench.evaluate`
directly.
"""

from adrbench.attacks.autoattack import OfficialAttack
from adrbench.attacks.pgd import PGD, fgsm
from adrbench.attacks.stages import Stage
from adrbench.attacks.suites import Suite

__all__ = ["PGD", "OfficialAttack", "Stage", "Suite", "fgsm"]
