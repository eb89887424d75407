"""The footnotes by which rows of one method differ: test images, weights, and training."""

from collections.abc import Sequence

from adrbench.report.footnotes import distinguish_test_images, distinguish_weights
from adrbench.report.grouping import SeedGroup
from adrbench.report.run_settings import Settings, distinguish_training


class Distinctions:
    """The footnotes by which the rows of a table differ, whose groups are given."""

    def __init__(self, groups: Sequence[SeedGroup], settings: Settings) -> None:
        self.by_data = distinguish_test_images(groups)
        self.by_weights = distinguish_weights(groups)
        self.by_training = distinguish_training(groups, settings)

    def of(self, group: SeedGroup) -> tuple[str, ...]:
        """Return the footnotes on a row of `group`."""
        identity = group.identity
        return (
            *self.by_weights.get(identity.weights, ()),
            *self.by_data.get(identity.data_sha256, ()),
            *self.by_training.get(identity, ()),
        )
