"""Charts as SVG for a page, and as files for a paper."""

import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from adrbench.report.cell_text import cut
from adrbench.report.figures.chart import Chart
from adrbench.report.figures.style import DARK, styled
from adrbench.runtime.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

#: What `--plots` saves: vector formats for papers, and an image for slides.
FORMATS = ("svg", "pdf", "png")
#: Dots per inch of images.
RESOLUTION = 200
#: The label of a figure for screen readers is no longer than this.
MOST_IN_LABEL = 1_000
SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_COLOR = re.compile("|".join(DARK))
_DECIMALS = re.compile(r"(\d+\.\d)\d+")
#: Without these, a file of the same figure is the same, byte for byte.
_NO_METADATA = {"svg": {"Date": None, "Creator": None}, "pdf": {"CreationDate": None}, "png": {}}


def save_charts(charts: Iterable[Chart], directory: Path) -> list[Path]:
    """Write each chart to `directory` in each of FORMATS, by rename; return the paths."""
    paths = []
    for chart in charts:
        with styled(**{"svg.hashsalt": chart.name}):
            figure = _draw(chart)
            for suffix in FORMATS:
                buffer = io.BytesIO()
                metadata = _NO_METADATA[suffix]
                figure.savefig(buffer, format=suffix, dpi=RESOLUTION, metadata=metadata)
                path = directory / f"{chart.name}.{suffix}"
                write_atomically(path, buffer.getvalue())
                paths.append(path)
    return paths


def to_inline_svg(chart: Chart) -> str:
    """Return a chart as an SVG element whose colors are those of the page, such as `var(--c…)`."""
    with styled(**{"svg.hashsalt": chart.name, "svg.fonttype": "none"}):
        buffer = io.StringIO()
        metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        _draw(chart).savefig(buffer, format="svg", metadata=metadata)
    return _theme(buffer.getvalue(), chart)


def variable(color: str) -> str:
    """Return the name of the CSS variable of a color of the figures."""
    return f"--c{color.removeprefix('#')}"


def _draw(chart: Chart) -> "Canvas":
    from matplotlib.figure import Figure as Canvas

    figure = Canvas(figsize=(chart.width, chart.height))
    chart.draw(figure)
    return figure


def _theme(text: str, chart: Chart) -> str:
    """Return an SVG document as an element of a page: themed, described, without unused ids."""
    ET.register_namespace("", SVG)
    ET.register_namespace("xlink", XLINK)
    root = ET.fromstring(text)
    _, _, width, height = root.attrib["viewBox"].split()
    used = set(re.findall(r"#([\w-]+)", text))
    for element in root.iter():
        if element.get("id") not in used:
            element.attrib.pop("id", None)
        if style := element.get("style"):
            element.set("style", _COLOR.sub(lambda found: f"var({variable(found[0])})", style))
        for name in ("d", "x", "y"):
            if value := element.get(name):
                element.set(name, _DECIMALS.sub(r"\1", value))
    for parent in root.iter(f"{{{SVG}}}defs"):
        for rules in parent.findall(f"{{{SVG}}}style"):  # they would apply to the whole page
            parent.remove(rules)
    root.attrib.pop("version", None)
    root.set("role", "img")
    label = f"{chart.title}. {chart.description} {chart.caption}"
    root.set("aria-label", cut(label.strip(), MOST_IN_LABEL))
    root.set("width", width)
    root.set("height", height)
    return ET.tostring(root, encoding="unicode")
