"""A figure that is not drawn yet, with what a reader needs who cannot see it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adrbench.report.places import Place

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

#: Inches of an ordinary figure; it stays legible at the width of a phone.
WIDTH, HEIGHT = 5.0, 3.3


@dataclass(frozen=True, kw_only=True, eq=False)
class Chart:
    """One figure: `draw` draws it into an empty matplotlib figure of `width` by `height` inches.

    `name` is unique among the charts of a report, and that of its files; it begins with `kind`.
    `place` is the data set and threat model that it belongs to, None for an inspected run, whose
    checkpoint is its `source`. `description` says in a sentence or two what it shows, and `caption`
    what is peculiar to it, where others have the same description.
    """

    name: str
    kind: str
    place: Place | None = None
    source: str = ""
    title: str
    description: str
    caption: str = ""
    draw: "Callable[[Canvas], None]"
    width: float = WIDTH
    height: float = HEIGHT
