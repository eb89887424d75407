"""A page as one HTML file: no request leaves it, and no script runs but its own.

Everything that comes from records is text: the template escapes it, and the page's content security
policy allows one script, by its hash, and images within the file.
"""

import base64
import hashlib
from importlib.resources import files
from typing import Any

from adrbench.report.cell_text import cut
from adrbench.report.figures.files import to_inline_svg, variable
from adrbench.report.figures.style import DARK
from adrbench.report.page.content import Page
from adrbench.report.page.html_table import make_html_table

#: Longer texts, which only a hostile record has, are cut.
MOST_CHARACTERS = 2_000


def render_page(page: Page) -> str:
    """Return `page` as the text of an HTML file."""
    from jinja2 import DictLoader, Environment, StrictUndefined
    from markupsafe import Markup

    sources = {name: _read(name) for name in ("template.html", "style.css", "script.js")}
    environment = Environment(
        loader=DictLoader(sources), autoescape=True, undefined=StrictUndefined, finalize=_cut
    )
    style = environment.get_template("style.css").render(
        light=_declare({color: color for color in DARK}), dark=_declare(DARK)
    )
    script = sources["script.js"]
    charts = {
        chart.name: Markup(to_inline_svg(chart))
        for section in page.sections
        for block in section.blocks
        for chart in block.charts
    }
    return environment.get_template("template.html").render(
        page=page,
        charts=charts,
        html_table=make_html_table,
        style=Markup(style),
        script=Markup(script),
        script_hash=_hash(script),
    )


def _cut(value: Any) -> Any:
    """Return text from outside with limited length."""
    from markupsafe import Markup

    is_text = isinstance(value, str) and not isinstance(value, Markup)
    return cut(value, MOST_CHARACTERS) if is_text else value


def _read(name: str) -> str:
    return files(__package__).joinpath(name).read_text("utf-8")


def _declare(colors: dict[str, str]) -> str:
    return " ".join(f"{variable(name)}: {value};" for name, value in colors.items())


def _hash(script: str) -> str:
    digest = hashlib.sha256(script.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"
