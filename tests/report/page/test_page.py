"""The page: what it contains, that it is one safe file, and how it behaves in a browser."""

import base64
import io
import json
import re
import shutil
import subprocess
import tempfile
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adrbench.report import build_report
from adrbench.report.figures import collect_charts
from adrbench.report.page import build_page, render_page
from adrbench.report.page.content import Block, Gallery, Page, Picture, Section
from adrbench.report.page.gallery import to_data_uri
from adrbench.results.outputs import OutputsFinder
from adrbench.results.records import Record
from page_records import (
    HOSTILE,
    ParsedPage,
    hostile_records,
    make_hostile,
    page_records,
    save_outputs,
)

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
#: What a page is made of; nothing else may be in it.
ALLOWED = {
    *("html", "head", "meta", "title", "style", "script", "body", "header", "nav", "main"),
    *("footer", "section", "h1", "h2", "h3", "dl", "div", "dt", "dd", "ul", "li", "p", "a"),
    *("code", "strong", "span", "br", "figure", "figcaption", "details", "summary", "label"),
    *("input", "button", "table", "caption", "thead", "tbody", "tr", "th", "td", "img"),
    *("svg", "defs", "clippath", "g", "path", "use", "text", "rect"),
}


def make_page(records: list[Record], outputs: OutputsFinder | None = None) -> str:
    report = build_report(records, outputs=outputs)
    return render_page(build_page(records, report, collect_charts(records, report), now=NOW))


@cache
def plain_page() -> str:
    return make_pages("")


@cache
def hostile_page() -> str:
    return make_pages(HOSTILE)


def make_pages(name: str) -> str:
    """Return a page of everything, whose every name is `name` unless that is empty."""
    with tempfile.TemporaryDirectory() as directory:
        with_outputs = save_outputs(Path(directory), name)
        if name:
            with_outputs = [make_hostile(record) for record in with_outputs]
        records = hostile_records() if name else page_records()
        return make_page([*records, *with_outputs], OutputsFinder.search([Path(directory)]))


def test_every_part_is_there() -> None:
    page = ParsedPage(plain_page())
    headings = page.text_of("h3")
    for title in (
        *("Robust accuracy", "What fooled the images", "Robust overfitting", "Comparisons"),
        *("Published baselines", "Warnings", "Software and hardware"),
        *("Calibration and consistency", "Reliability", "Classes", "Images"),
        "digits-small-cnn-adr+wa-seed0, best epoch",
    ):
        assert title in headings
    names = {value for tag, name, value in page.attributes if (tag, name) == ("figure", "id")}
    for kind in (
        *("accuracy", "radius", "attacks", "overfitting", "differences", "robustbench"),
        *("calibration", "confidence", "consistency", "reliability", "labels", "annealing"),
    ):
        assert any(name.startswith(f"figure-{kind}-") for name in names), kind
    assert "figure-training-digits-small-cnn-at-wa" in names


def test_ids_are_unique_and_every_reference_has_its_target() -> None:
    page = ParsedPage(plain_page())
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    targets = {value[1:] for _, name, value in page.attributes if value.startswith("#")}
    targets |= set(re.findall(r"url\(#([^)]+)\)", plain_page()))
    assert targets <= set(ids)


def test_every_figure_has_a_description() -> None:
    page = ParsedPage(plain_page())
    labels = [value for tag, name, value in page.attributes if (tag, name) == ("svg", "aria-label")]
    assert len(labels) == page.tags.count("svg") > 5
    assert all(len(label) > 40 for label in labels)


def test_figures_take_their_colors_from_the_page() -> None:
    svg = "".join(re.findall(r"<svg.*?</svg>", plain_page(), re.DOTALL))
    declared = set(re.findall(r"(--c[0-9a-f]{6}): #", plain_page()))
    assert set(re.findall(r"var\((--c[0-9a-f]{6})\)", svg)) <= declared
    assert not re.findall(r"(?:fill|stroke): #", svg)


def test_hostile_names_are_text() -> None:
    page = ParsedPage(hostile_page())
    assert set(page.tags) <= ALLOWED
    assert page.tags.count("script") == page.tags.count("style") == 1
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    links = [value for _, name, value in page.attributes if name in ("href", "src", "xlink:href")]
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in links)
    assert "49" not in page.text_of("h2")  # {{ 7 * 7 }}
    assert '<script>alert("x")</script>' in page.text_of("td")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f]", hostile_page())


def test_hostile_names_are_cut_in_figures_and_tables() -> None:
    assert "A" * 10_000 not in hostile_page()
    assert len(hostile_page()) < 3 * len(plain_page())


def test_every_image_is_whole() -> None:
    sources = [value for tag, name, value in ParsedPage(plain_page()).attributes if name == "src"]
    assert len(sources) > 10
    for source in sources:
        content = base64.b64decode(source.removeprefix("data:image/png;base64,"), validate=True)
        with Image.open(io.BytesIO(content)) as image:
            image.load()
    large = np.random.default_rng(0).random((3, 64, 64), np.float32)
    picture = Picture(images={"noise": to_data_uri(large)}, lines=("noise",))
    gallery = Gallery(title="large", text="", pictures=(picture,))
    block = Block(title="large", galleries=(gallery,))
    page = Page(title="large", facts={}, sections=[Section(title="large", blocks=(block,))])
    assert to_data_uri(large) in render_page(page)


def test_nothing_is_fetched() -> None:
    for page in (plain_page(), hostile_page()):
        policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
        assert policy
        assert "default-src &#39;none&#39;" in policy[1] or "default-src 'none'" in policy[1]
        assert not re.findall(r"(?:src|href)=\"https?:", page)


def browse(html: str, directory: Path, *flags: str) -> tuple[str, str, list[str]]:
    """Return the page after its script ran, the log of the browser, and the URLs it asked for."""
    assert CHROMIUM
    path, network = directory / "page.html", directory / "network.json"
    path.write_text(html, "utf-8")
    done = subprocess.run(
        [
            *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-extensions"),
            *("--disable-background-networking", "--disable-component-update", "--no-first-run"),
            *("--enable-logging=stderr", f"--user-data-dir={directory / 'profile'}"),
            *(f"--log-net-log={network}", "--virtual-time-budget=2000", "--dump-dom", *flags),
            path.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    log = network.read_text("utf-8")
    urls = [
        str(event["params"]["url"])
        for event in json.loads(log)["events"]
        if "url" in event.get("params", {})
    ]
    return done.stdout, done.stderr, urls


@needs_chromium
@pytest.mark.slow
@pytest.mark.parametrize("make", [plain_page, hostile_page])
def test_no_console_message_and_no_request(make: object, tmp_path: Path) -> None:
    html = plain_page() if make is plain_page else hostile_page()
    _, log, urls = browse(html, tmp_path)
    assert "CONSOLE" not in log
    assert [url for url in urls if not OF_BROWSER.match(url)] == []


#: What Chromium asks for by itself.
OF_BROWSER = re.compile(r"file:|data:|chrome|https?://[\w.-]+\.(google|googleapis|gvt1)\.com/")

#: Sorts the first table by its first column of accuracies, then filters it.
PROBE = """
const box = document.querySelector(".table:has(input)");
const headings = [...box.querySelectorAll("thead th")];
const clean = headings.find((one) => one.textContent.includes("clean"));
clean.querySelector("button").click();
const read = () => [...box.querySelector("tbody").rows]
  .filter((row) => !row.hidden).map((row) => row.cells[clean.cellIndex].textContent.trim());
document.body.dataset.sorted = JSON.stringify(read());
clean.querySelector("button").click();
document.body.dataset.again = JSON.stringify(read());
const input = box.querySelector("input");
input.value = read()[0];
input.dispatchEvent(new Event("input"));
document.body.dataset.left = String(read().length);
"""


MEASURE = """
document.body.dataset.width = document.documentElement.scrollWidth - innerWidth;
document.body.dataset.paper = getComputedStyle(document.body).backgroundColor;
"""


@needs_chromium
@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 500])
def test_the_page_fits_its_window_and_follows_the_theme(
    width: int, scheme: str, tmp_path: Path
) -> None:
    """500 pixels is the narrowest window of Chromium; the layout of a phone begins above it."""
    html = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", plain_page())
    html = html.replace("</body>", f"<script>{MEASURE}</script></body>")
    number = {"light": 1, "dark": 0}[scheme]
    flags = (f"--window-size={width},800", f"--blink-settings=preferredColorScheme={number}")
    dom, _, _ = browse(html, tmp_path, *flags)
    body = re.search(r"<body([^>]*)>", dom)
    assert body
    assert int(re.search(r'data-width="(-?\d+)"', body[1])[1]) <= 0  # type: ignore[index]
    paper = {"light": "rgb(255, 255, 255)", "dark": "rgb(13, 17, 23)"}[scheme]
    assert f'data-paper="{paper}"' in body[1]


@needs_chromium
@pytest.mark.slow
def test_tables_sort_and_filter(tmp_path: Path) -> None:
    html = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", plain_page())
    html = html.replace("</body>", f"<script>{PROBE}</script></body>")
    dom, log, _ = browse(html, tmp_path)
    assert "CONSOLE" not in log
    found = {
        name: json.loads(value.replace("&quot;", '"'))
        for name, value in re.findall(r'data-(sorted|again|left)="([^"]*)"', dom)
    }
    numbers = [float(text.split()[0]) for text in found["sorted"]]
    assert numbers == sorted(numbers, reverse=True)
    assert len(numbers) > 3
    assert found["again"] == found["sorted"][::-1]
    assert 0 < found["left"] < len(numbers)
