"""Checks on the first few images of whether attacks on a model can be trusted."""

from torch import Tensor, nn

from adrbench.attacks.reliability_checks import NUM_CHECKED, check_model
from adrbench.attacks.reliability_warnings import collected_warnings
from adrbench.attacks.suites import Suite
from adrbench.config.threat import ThreatModel
from adrbench.data import Images, to_float
from adrbench.registry import calling_user_code


def assess_reliability(
    model: nn.Module,
    *,
    attacked: nn.Module,
    images: Images,
    clean: Tensor,
    suite: Suite,
    threat: ThreatModel,
) -> list[str]:
    """Return why the attacks of `suite` on a model are unreliable, one sentence per reason.

    `attacked` is the form of `model` that is attacked, and `clean` are the images that it
    classifies correctly, (N,) booleans on the CPU. Nothing is checked where there are none, or
    where all have the same class although the images do not: a model that always predicts that
    class has no decision boundary for an attack to find.
    """
    labels = images.labels.cpu()
    predicts_one_class = len(set(labels[clean].tolist())) <= 1 < len(set(labels.tolist()))
    if not suite.stages or not clean.any() or predicts_one_class:
        return []
    few = images.take(clean.nonzero().squeeze(1)[:NUM_CHECKED])
    x = to_float(few.pixels)
    with collected_warnings() as collected:
        check_model(
            attacked,
            x,
            few.labels,
            norm=threat.norm,
            loss=suite.loss,
            # A model that was copied gave the same logits in several passes.
            may_vary=attacked is model and not suite.for_randomized,
        )
        with calling_user_code(lambda raised: f"inspect of suite {suite.name} {raised}."):
            suite.inspect(model, x)
        return collected()
