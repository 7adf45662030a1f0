"""The card of a run, as HTML and as text."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trackdsl._core.escaping import printable
from trackdsl._runs.run import Run, known_page
from trackdsl._runs.run_html import run_html
from trackdsl.journal._store_target import Target
from trackdsl.query._card import Card, Curve, Param, Progress, card_html, card_text
from trackdsl.query._sparkline import sparkline_svg, sparkline_text

TAGS = {"code", "div", "span", "b", "a", "table", "tr", "td", "svg", "path", "details", "summary", "pre"}
ATTRIBUTES = {
    "style", "title", "href", "target", "rel", "width", "height", "viewbox", "d", "fill", "stroke", "stroke-width",
    "stroke-linejoin", "aria-hidden",
}  # fmt: skip
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'; color:red",
    "\x1b[31m",
    "a\u202eb",
    "&lt;",
]
TEXTS = st.one_of(st.text(max_size=120), st.sampled_from(HOSTILE))
NUMBERS = st.floats(allow_nan=True, allow_infinity=True)
CARDS = st.builds(
    Card,
    name=TEXTS,
    status=st.one_of(st.sampled_from(["RUNNING", "FINISHED", "FAILED"]), TEXTS),
    seconds=st.one_of(st.none(), st.floats(0, 1e9)),
    params=st.dictionaries(TEXTS, st.builds(Param, TEXTS, st.one_of(st.none(), TEXTS)), max_size=40),
    metrics=st.dictionaries(
        TEXTS, st.builds(Curve, st.lists(NUMBERS, max_size=70), st.one_of(st.none(), NUMBERS)), max_size=20
    ),
    progress=st.one_of(st.none(), st.builds(Progress, st.integers(0, 10**9), st.one_of(st.none(), NUMBERS), TEXTS)),
    warnings=st.lists(TEXTS, max_size=9),
    diff=st.lists(TEXTS, max_size=9),
    failure=st.one_of(st.none(), TEXTS),
    url=st.one_of(st.none(), TEXTS, st.just("javascript:alert(1)"), st.just("http://127.0.0.1:5000/#/x")),
    rows=st.integers(-1, 100),
)


class _Page(HTMLParser):
    """The elements, links and texts that a browser would see."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.links: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in TAGS
        assert {name for name, _ in attrs} <= ATTRIBUTES
        assert not any("url(" in (value or "") for name, value in attrs if name == "style")
        self.links += [value or "" for name, value in attrs if name == "href"]
        if tag != "path":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag == "path"
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@given(CARDS)
def test_whatever_it_shows_is_inert_and_bounded(card: Card) -> None:
    """Only our own elements and attributes are in it, no other link, no control character; and it stays small."""
    text = card_html(card)
    page = _Page(text)
    assert all(link.startswith("http") for link in page.links)
    assert len(text) < 120_000
    for shown in ("".join(page.texts), card_text(card)):
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202a-\u202e]", shown)


def test_it_is_not_taller_when_more_comes() -> None:
    """Parameters, points, progress and an end do not change the height; too many metrics scroll."""
    card = Card("fit", rows=3, warnings=["stale"], lines=1)
    later = replace(
        card,
        status="FINISHED",
        seconds=75.0,
        params={f"p{n}": Param("x", "y") for n in range(30)},
        metrics={f"m{n}": Curve([1.0, 2.0], 1.5) for n in range(9)},
        progress=Progress(3, 10, "epoch"),
        warnings=["stale", "left out: x", "left out: y"],
        failure="ValueError: x",
    )
    heights = [re.findall(r"<div style=\"height:(\d+)px", card_html(each)) for each in (card, later)]
    assert heights[0] == heights[1] == ["22", "66"]
    head, _, below = card_html(later).partition('<div style="height:66px')
    assert "ValueError: x" in head
    assert below.partition("</table></div>")[2].count("⚠ left out") == 0
    assert below.count("⚠ left out: y</div>") == 1
    assert "<details" not in card_html(later)


def test_what_changed_is_named() -> None:
    """The card names a parameter with its other value, a metric with its difference, and how much code changed."""
    card = Card(
        "fit",
        params={"lr": Param("0.3", "0.1"), "depth": Param("3")},
        metrics={"acc": Curve([0.5, 0.75], 0.5), "loss": Curve([1.0], 1.0), "odd": Curve([math.nan], 1.0)},
        diff=["@@ -1,2 +1 @@", "+x = 1", "-x = 2", "-y = 3"],
    )
    html = card_html(card)
    assert "(was 0.1)" in html
    assert "▲ +0.25" in html
    assert "+1, -2 lines" in html
    assert card_text(card).splitlines()[1:4] == [
        "  lr=0.3  depth=3",
        "  acc  0.75  ▁█  ▲ +0.25",
        "  loss  1  ▅  =",
    ]


@given(st.lists(NUMBERS, max_size=300))
def test_any_numbers_make_a_curve(values: list[float]) -> None:
    """Numbers of any size make a curve, also if their difference is too large for a number, and with gaps."""
    assert len(sparkline_text(values)) == min(len(values), 12)
    assert "nan" not in sparkline_svg(values)
    assert "inf" not in sparkline_svg(values)


@pytest.mark.parametrize(("values", "text"), [([], ""), ([3.0], "▅"), ([1, 1, 1], "▅▅▅"), ([0, math.nan, 1], "▁ █")])
def test_curves_of_characters(values: list[float], text: str) -> None:
    """In a curve of characters, equal values are in the middle, and a value that is not a number is a gap."""
    assert sparkline_text(values) == text


@given(TEXTS, st.booleans(), TEXTS)
def test_a_run_as_html(name: str, child: bool, page: str) -> None:
    """A `Run` is one line of HTML in which no name is markup, with a link to a page that is known."""
    root = Run(bytes(15) + b"1", name, None, name, None, Target("memory:", "/", deliver=False))
    run = Run(bytes(15) + b"2", name, root, f"{name}/{name}", None, root.target) if child else root
    shown = _Page(run_html(run, page))
    assert shown.links == [printable(page)]
    assert run.id in shown.texts
    assert "ended" in shown.texts
    assert known_page(run) is None
