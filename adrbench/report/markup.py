"""Tables as markdown and as LaTeX."""

import re
from collections.abc import Sequence

from adrbench.report.cell_text import MISSING, Grid, grid
from adrbench.report.tables import Report

MARKDOWN_SPECIAL = str.maketrans({c: f"\\{c}" for c in "\\|*`<~$&"})
#: What would begin the target of a link or continue an address that GitHub turns into a link, and
#: underscores that would emphasize.
_LINK_OR_EMPHASIS = re.compile(
    r"(?<=\])\(|(?<=\])\[|:(?=//)|(?<=www)\.|(?<![^\W_])_|_(?![^\W_])", re.IGNORECASE
)
#: Ends an e-mail address or the name of a user; GitHub links them even with escaped characters.
_AT = "@<!-- -->"
LATEX_SPECIAL = str.maketrans(
    {c: f"\\{c}" for c in "&%$#_{}"}
    | {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "±": r"$\pm$",
    }
)
SHRINK_TO_FIT = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}"


def escape_markdown(text: str) -> str:
    """Return `text` such that GitHub's markdown shows it as it is."""
    plain = _LINK_OR_EMPHASIS.sub(lambda found: f"\\{found[0]}", text.translate(MARKDOWN_SPECIAL))
    return plain.replace("@", _AT)


def markdown(report: Report) -> str:
    """Return GitHub's pipe tables, each under a heading and above its notes."""
    tables = [_markdown_table(grid(table, report.intervals)) for table in report.shown_tables]
    notes = [f"{escape_markdown(note)}\n" for note in report.notes]
    return "\n".join([*tables, *notes])


def latex(report: Report) -> str:
    r"""Return one `table` environment per table; it needs `\usepackage{booktabs,graphicx}`."""
    tables = [_latex_table(grid(table, report.intervals)) for table in report.shown_tables]
    notes = [f"% {note}\n" for note in report.notes]
    return "\n".join(["% needs \\usepackage{booktabs,graphicx}", *tables, *notes])


def _markdown_table(text: Grid) -> str:
    rules = ["---:" if column.align == "right" else ":---" for column in text.columns]
    rows = [[column.label for column in text.columns], *text.cells]
    header, *body = (_pipes([escape_markdown(cell) for cell in row]) for row in rows)
    notes = [f"- {escape_markdown(note)}" for note in text.notes]
    heading = f"### {escape_markdown(text.title)}"
    lines = [heading, "", header, _pipes(rules), *body, "", *notes]
    return "\n".join(lines).rstrip("\n") + "\n"


def _pipes(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _latex_table(text: Grid) -> str:
    sides = "".join("r" if column.align == "right" else "l" for column in text.columns)
    rows = [_ampersands(row) for row in text.cells]
    notes = [rf"\par\smallskip {note.translate(LATEX_SPECIAL)}" for note in text.notes]
    lines = [
        r"\begin{table}",
        r"\centering",
        r"\small",
        rf"\caption{{{text.title.translate(LATEX_SPECIAL)}}}",
        rf"{SHRINK_TO_FIT}{{\begin{{tabular}}{{@{{}}{sides}@{{}}}}",
        r"\toprule",
        _ampersands([column.label for column in text.columns]),
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}}",
        *(
            [r"\begin{minipage}{\linewidth}", r"\footnotesize", *notes, r"\end{minipage}"]
            if notes
            else []
        ),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _ampersands(cells: Sequence[str]) -> str:
    """Return one row; an empty group keeps a leading [ from being read as an argument."""
    shown = ["--" if cell == MISSING else cell.translate(LATEX_SPECIAL) for cell in cells]
    guard = "{}" if shown and shown[0].startswith("[") else ""
    return f"{guard}{' & '.join(shown)} \\\\"
