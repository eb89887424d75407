"""Names from outside are text in markdown and in LaTeX, whatever they contain."""

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from adrbench.report import build_report, render
from adrbench.report.cell_text import cut
from adrbench.report.markup import LATEX_SPECIAL, escape_markdown
from page_records import HOSTILE, hostile_records
from report_records import fixed_records

MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def text_of(markdown: str) -> str:
    """Return the text of a paragraph, whose only content must be text and empty comments."""
    (_, inline, _) = MARKDOWN.parse(markdown)
    children = inline.children or []
    html = {child.content for child in children if child.type == "html_inline"}
    assert html <= {"<!-- -->"}
    assert {child.type for child in children} <= {"text", "text_special", "html_inline"}
    return "".join(child.content for child in children if child.type != "html_inline")


@pytest.mark.parametrize(
    "name",
    [
        "a_b", "_a_", "__a__", "*a*", "~~a~~", "`a`", "[a](b)", "![a](b)", "[a][b]", "<b>a</b>",
        "&lt;", "$a$", "a | b", "\\", "a\\_b_", "<!-- a -->", "<https://a.example>",
    ],
)  # fmt: skip
def test_markup_is_text_in_markdown(name: str) -> None:
    assert text_of(f"x {escape_markdown(name)} x") == f"x {name} x"


@given(st.text("ab_*[]()<>!&;`~$\\|#-+. ", max_size=20))
def test_any_name_is_text_in_markdown(name: str) -> None:
    assert text_of(f"x{escape_markdown(name)}x") == f"x{name}x"


@pytest.mark.parametrize(
    "name",
    [
        *("http://a.example/x", "HTTPS://a.example", "ftp://a.example", "www.a.example", "Www.a.b"),
        *("a@b.example", "mailto:a@b.example", "xmpp:a@b.example/c", "@user", "(www.a.b)"),
    ],
)
def test_addresses_are_no_links_on_github(name: str) -> None:
    """GitHub finds protocols and `www.` in the source, users and e-mail addresses in the text.

    An escape hinders the former, only another element the latter ("Autolinks (extension)" of the
    specification of GitHub Flavored Markdown 0.29, as cmark-gfm implements it).
    """
    escaped = escape_markdown(name)
    assert text_of(f"x {escaped} x") == f"x {name} x"
    assert not re.search(r"(?<!\\)://|www\.", escaped, re.IGNORECASE)
    pieces = re.sub(r"\\(?=[^\w\s])", "", escaped).split("<!-- -->")
    assert not any(re.search(r"@\w", piece) for piece in pieces)


def test_hostile_records_make_only_tables_in_markdown() -> None:
    report = render(build_report(hostile_records()), "markdown")
    tokens = MARKDOWN.parse(report)
    assert "table_open" in {token.type for token in tokens}
    inside = {
        child.type for token in tokens for child in token.children or () if token.type == "inline"
    }
    assert inside <= {"text", "text_special", "softbreak", "html_inline"}
    assert "html_block" not in {token.type for token in tokens}


def test_hostile_records_run_no_command_in_latex() -> None:
    commands = set(re.findall(r"\\([A-Za-z]+)", render(build_report(fixed_records()), "latex")))
    known = {*commands, *re.findall(r"\\([A-Za-z]+)", "".join(LATEX_SPECIAL.values()))}
    hostile = render(build_report(hostile_records()), "latex")
    assert set(re.findall(r"\\([A-Za-z]+)", hostile)) <= known
    lines = [line for line in hostile.splitlines() if not line.startswith("% ")]
    assert not re.search(r"(?<!\\)[%&#_$](?![&])", re.sub(r" & |\$\\pm\$", "", "\n".join(lines)))


@pytest.mark.parametrize("form", ["terminal", "markdown", "latex"])
def test_hostile_names_are_cut_and_printable(form: str) -> None:
    shown = render(build_report(hostile_records()), form, width=120)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202e]", shown)
    assert max(map(len, shown.splitlines())) < len(HOSTILE)


def test_a_title_is_cut_with_its_table() -> None:
    (first, *_) = build_report([replace(fixed_records()[0], dataset=HOSTILE)]).tables
    assert len(cut(first.title)) <= 200
