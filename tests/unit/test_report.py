"""Reports: what a page shows, that hostile content in it stays text, and that thousands of runs fit."""

from __future__ import annotations

import itertools
import json
import math
import re
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

import pytest

from trackdsl.store_format.changes.compare import Change, Changes, MetricDelta
from trackdsl.store_format.changes.stored import Previous, Stored
from trackdsl.store_format.report.critical_path import critical_path
from trackdsl.store_format.report.material import collect
from trackdsl.store_format.report.node import Node
from trackdsl.store_format.report.page import LARGEST, report_html
from trackdsl.store_format.report.thinning import thinned
from trackdsl.store_format.report.timeline import timeline

BEGAN = 1_700_000_000_000
PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)
_ids = itertools.count()


def run(name: str, start: int, end: int, *children: Node, status: str = "FINISHED", **values: Any) -> Node:
    """A run that began and ended this many milliseconds after `BEGAN`."""
    return Node(
        run_id=f"{next(_ids):032x}",
        name=name,
        status=status,
        duration=(end - start) / 1000,
        start=datetime.fromtimestamp((BEGAN + start) / 1000, UTC).isoformat(),
        params=values.get("params", {}),
        metrics=values.get("metrics", {}),
        tags=values.get("tags", {}),
        children=list(children),
    )


def failed(name: str, start: int, end: int, *children: Node, message: str = "it broke") -> Node:
    text = f"Traceback (most recent call last):\n  in {name}\nValueError: {message}"
    tags = {"type": "ValueError", "message": message, "traceback": text}
    tags = {f"trackdsl.exception.{key}": text for key, text in tags.items()}
    return run(name, start, end, *children, status="FAILED", tags=tags)


@dataclass(frozen=True)
class File:
    path: str
    size: int


@dataclass
class Store:
    """A store with files by run and path, in which all metrics have the same points."""

    contents: dict[str, dict[str, bytes]] = field(default_factory=dict)
    values: list[float] = field(default_factory=lambda: [1.0])

    def points(self, run_id: str, key: str) -> list[tuple[int, float, int]]:
        return [(step, value, BEGAN + step) for step, value in enumerate(self.values)]

    def files(self, run_id: str) -> list[File]:
        return [File(path, len(content)) for path, content in self.contents.get(run_id, {}).items()]

    def content(self, run_id: str, path: str) -> bytes | None:
        return self.contents.get(run_id, {}).get(path)


class Page(HTMLParser):
    """A page as a browser sees it: its elements, their attributes, its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.scripts: list[str] = []
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open = tag

    def handle_data(self, data: str) -> None:
        if self._open == "script":
            self.scripts.append(data)
        else:
            self.text += data

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def ids(self) -> list[str]:
        return [attrs["id"] or "" for tag, attrs in self.elements if tag == "section"]

    def data(self) -> Any:
        return json.loads(self.scripts[0])


def page_of(tree: Node, store: Store | None = None) -> Page:
    return Page(report_html(collect(tree, store or Store())))


def test_what_a_page_has() -> None:
    """Sections appear only if they have content; curves, figures, tables, parameters and tracebacks are shown."""
    train = run("train", 0, 60, params={"lr": "0.1"}, metrics={"loss": 0.5})
    broken = failed("broken", 60, 90)
    tree = failed("main", 0, 100, train, broken)
    tree.tags["trackdsl.omitted.model"] = "it cannot be pickled"
    table = json.dumps({"columns": ["age"], "data": [[31]]}).encode()
    store = Store(
        {train.run_id: {"roc.png": PNG, "t.json": table, "x.bin": b"1", "no.png": b"text"}}, [3.0, math.nan, 1.0]
    )
    page = page_of(tree, store)
    assert page.ids() == ["failures", "timeline", "tree", "metrics", "files", "parameters", "environment", "left-out"]
    assert [line[0] for line in page.data()["charts"][0]["lines"]] == ["train"]
    assert page.data()["charts"][0]["lines"][0][2] == [3.0, None, 1.0]
    for text in ("in broken", "31", "x.bin", "no.png", "it cannot be pickled", "lr"):
        assert text in page.text
    assert page.text.count("Traceback") == 1, "the exception went up, and is shown where it was raised"
    assert page_of(run("alone", 0, 1)).ids() == ["timeline", "tree", "environment"]


def test_huge_values_are_drawn() -> None:
    """The largest numbers are larger than any if they are rounded up."""
    huge = 1.7976931348623155e308
    tree = run("train", 0, 60, metrics={"loss": 0.5, "system/cpu_percentage": 1.0})
    page = page_of(tree, Store({}, [huge, -huge, 1.23456789]))
    assert page.data()["charts"][0]["lines"][0][2] == [huge, -huge, 1.2346]
    assert "nan" not in page.text


HOSTILE = (
    '"><script>alert(1)</script>',
    "</script><script>alert(1)</script>",
    "' onmouseover='alert(1)",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)>",
    "javascript:alert(1)",
    "\u202e]]><!--\x00\x1b[31m\u2028",
)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_are_inert(text: str) -> None:
    """A hostile name, value, tag or file is text on the page: no element, attribute or address."""
    child = failed(text, 0, 50, message=text)
    tags = {
        "trackdsl.call": json.dumps({"function": text, "file": text, "host": text, "pid": 1, "source_hash": "0"}),
        text: text,
    }
    tags |= {f"trackdsl.omitted.{text}": text, "mlflow.source.name": text}
    tree = run(text, 0, 100, child, params={text: text}, metrics={text: 1.0, f"system/{text}": 1.0}, tags=tags)
    cells = json.dumps({"columns": [text], "data": [[text]]}).encode()
    changed = Changes(
        (Change(text, text, text, text, (text,)), Change("source", text, "a", "b", (text,))),
        parts_at=text,
        parts_by=(text,),
        metrics=(MetricDelta(text, text, 1.0, 2.0),),
    )
    stored = Stored(
        summary=text,
        previous=Previous(text, text, 1),
        changes=changed,
        diffs={text: f"+{text}"},
        unknown=(text,),
        python=text,
        packages="p",
        code={f"{text} 0": {text: "u"}},
        kept_in=dict.fromkeys(("0", "p", "u"), tree.run_id) | {"x": text},
    )
    files = {
        f"{text}.json": cells,
        f"{text}.bin": b"",
        "evil.svg": f"<svg>{text}</svg>".encode(),
        "trackdsl/changes.json": stored.encode().encode(),
        "trackdsl/source.json": json.dumps({"0": text, "p": text, "u": text}).encode(),
    }
    page = page_of(tree, Store({tree.run_id: files}, [1.0, 2.0]))
    clean = page_of(run("main", 0, 100, run("child", 0, 50)))
    known = {tag for tag, _ in clean.elements} | {"img", "pre", "path", "svg", "figure", "figcaption", "thead", "ul"}
    known |= {"h3", "ol", "i", "th"}
    assert {tag for tag, _ in page.elements} <= known
    assert [tag for tag, _ in page.elements].count("script") == 2
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name in ("srcdoc", "action", "xlink:href")]
        address = attributes.get("href") or attributes.get("src") or "#"
        assert re.match(r"#[a-z-]*\Z|data:image/[a-z+]+;base64,[A-Za-z0-9+/=]*\Z", address), (tag, address)
    assert page.scripts[1] == clean.scripts[1]
    assert not re.search(r"[<>&\u2028\x00\x1b]", page.scripts[0])


def test_a_call_tag_of_others_is_not_trusted() -> None:
    """Anybody can set the tag of a run: a field of a type that no trackdsl writes is as if it were not there."""
    tag = {"trackdsl.call": json.dumps({"pid": "12", "host": ["x"], "function": 5, "file": {}, "git_dirty": []})}
    page = page_of(run("main", 0, 2, run("a", 0, 1, tags=tag, params={"x": "1"})))
    assert page.ids() == page_of(run("main", 0, 2, run("a", 0, 1, params={"x": "1"}))).ids()


def test_files_of_others_are_not_trusted() -> None:
    """If the file of changes has another form or is damaged, the page leaves out what it does not say."""
    for content in (
        b"[]",
        b"{",
        b'{"changes": [], "previous": 3, "diffs": [1], "unknown": {}}',
        b"\xff",
        b'{"a":' * 9999,
    ):
        tree = run("main", 0, 100)
        assert page_of(tree, Store({tree.run_id: {"trackdsl/changes.json": content}})).ids()[-1] == "environment"


def test_pages_of_others_are_shown_without_any_permission() -> None:
    """A page without scripts is in a sandboxed frame, as one attribute; one with scripts or a large one is named."""
    evil = """</iframe>"'><img src=x onerror="top.alert(1)"><a target=_top href="https://example.com">"""
    files = {
        "styled.html": b"<table><tr><td>1</td></tr></table>",
        "evil.htm": evil.encode(),
        "plotly.html": b"<div></div><SCRIPT>alert(1)</SCRIPT>",
        "large.html": bytes(2_000_000),
    }
    tree = run("main", 0, 10)
    page = page_of(tree, Store({tree.run_id: files}))
    frames = [attributes for tag, attributes in page.elements if tag == "iframe"]
    assert [frame["srcdoc"] for frame in frames] == [files["styled.html"].decode(), evil]
    assert [frame["sandbox"] for frame in frames] == [None, None]
    assert "img" not in [tag for tag, _ in page.elements]
    assert page.text.index("Interactive figures and pages") < page.text.index("plotly.html")
    assert f"mainplotly.html{tree.run_id}" in page.text


def test_failures_that_differ_in_numbers_are_one() -> None:
    """Thousands of items that fail alike are one traceback with a count."""
    tree = run("main", 0, 100, *(failed(f"item-{at}", at, at + 1, message=f"item {at} broke") for at in range(50)))
    page = page_of(tree)
    assert page.text.count("Traceback") == 1
    assert "and 49 more like it" in page.text


def test_a_clock_that_was_set_back() -> None:
    """No negative time is shown, and nothing is longer than the whole."""
    text = page_of(run("main", 0, -3000, run("inner", 5, 3))).text
    assert "clock set back" in text
    assert not re.search(r"-\d+(\.\d)? m?s", text)


def test_infinite_values_are_named_and_not_drawn() -> None:
    """MLflow stores the largest number for infinity: it would make a curve flat."""
    largest = 1.7976931348623157e308
    tree = run("main", 0, 100, metrics={"loss": largest, "system/cpu_percentage": 1.0})
    page = page_of(tree, Store(values=[1.0, 2.0, largest, -largest, math.nan]))
    (chart,) = page.data()["charts"]
    assert (chart["low"], chart["high"], chart["lines"][0][2]) == (1.0, 2.0, [1.0, 2.0, None, None, None])
    assert "inf" in page.text
    assert "e+308" not in page.text


def test_long_values_that_differ_at_their_end() -> None:
    """What differs is shown."""
    changed = Changes((Change("param", "query", "x" * 500 + "1", "x" * 500 + "2"),))
    tree = run("main", 0, 100)
    files = {"trackdsl/changes.json": Stored(previous=Previous("a", "b", 1), changes=changed).encode().encode()}
    text = page_of(tree, Store({tree.run_id: files})).text
    assert "…xxxxxxxxxx1…xxxxxxxxxx2" in text


def test_ten_thousand_runs() -> None:
    """Ten thousand runs are in the timeline, many of one kind are a group with a count, and the page is small."""
    items = [run(f"item-{at}", at, at + 1, metrics={"score": 1.0}) for at in range(9_999)]
    items[5000] = failed("item-5000", 5000, 5001)
    html = report_html(collect(run("main", 0, 10_000, *items), Store()))
    page = Page(html)
    assert len(html) < 1_200_000
    assert len(page.data()["bars"]["start"]) == 10_000
    assert "9,999 runs" in page.text
    assert "1 failed or killed" in page.text
    assert sum(attrs.get("class", "").startswith("node") for tag, attrs in page.elements if tag == "details") < 100  # type: ignore[union-attr]


def test_a_page_is_never_larger_than_its_limit() -> None:
    """Many figures and long texts: what does not fit is left out, and the page says so."""
    tree = run("main", 0, 10, *(run(f"a{chr(97 + at)}{at}", 0, 1, params={"p": "x" * 6000}) for at in range(300)))
    store = Store({one.run_id: {"f.png": PNG + bytes(90_000)} for one in tree.children})
    html = report_html(collect(tree, store))
    assert len(html.encode()) < LARGEST
    assert "f.png" in html


_CJK = [chr(0x4E00 + at) for at in range(20_000)]


def _large(what: str) -> Node:
    """A tree whose names, values or tags would make a page of several megabytes; of `changes`, its files do."""
    if what == "names":
        return run("main", 0, 10_000, *(run("".join(_CJK[at : at + 80]), at, at + 1) for at in range(10_000)))
    if what == "tracebacks":
        failures = (failed(f"a{sign}", 0, 1, message="<" * 20_000 + sign) for sign in _CJK[:300])
        return run("main", 0, 10, *failures)
    values: dict[str, Any] = {}
    if what == "parameters":
        values = {"params": {f"p{at}": "<" * 6000 for at in range(60)}}
    if what == "metrics":
        values = {"metrics": {"<" * 200 + str(at): 1.0 for at in range(60)}}
    return run("main", 0, 10, *(run(f"a{sign}", 0, 1, **values) for sign in _CJK[:400]))


@pytest.mark.parametrize("what", ["names", "parameters", "metrics", "tracebacks", "changes"])
def test_what_is_too_large_is_shortened(what: str) -> None:
    """Whatever the runs contain, the page is small enough, has all runs in the timeline, and says what it lacks."""
    tree = _large(what)
    changes = tuple(Change("param", "<" * 500 + str(at), "<" * 6000, "", ("<" * 500,)) for at in range(500))
    diffs = {f"d{at}": "+<" * 15_000 for at in range(60)}
    stored = Stored(previous=Previous("a", "b", 1), changes=Changes(changes), diffs=diffs)
    files = {"trackdsl/changes.json": stored.encode().encode()} if what == "changes" else {}
    html = report_html(collect(tree, Store({tree.run_id: files}, [float(at) for at in range(100)])))
    assert len(html.encode()) < LARGEST
    page = Page(html)
    assert len(page.data()["bars"]["start"]) == 1 + len(tree.children)
    assert "the page would be too large" in page.text
    assert len(set(page.data()["names"])) == 1 + len(tree.children), "names that differ still differ"


def test_what_is_rare_comes_first() -> None:
    """Hundreds of items before it do not keep the curves and figures of a training off the page."""
    items = [run(f"item-{at}", at, at + 1, metrics={"rows": 1.0}) for at in range(500)]
    train = run("train", 500, 600, metrics={"loss": 0.5})
    tree = run("main", 0, 600, *items, train)
    material = collect(tree, Store({train.run_id: {"roc.png": PNG}}, [3.0, 1.0]))
    assert material.curves[0].run.name == "train"
    assert [file.run.name for file in material.files] == ["train"]


def test_figures_that_are_too_large_are_named() -> None:
    """The page says why."""
    tree = run("main", 0, 10)
    text = page_of(tree, Store({tree.run_id: {"large.png": PNG + bytes(2_000_000), "x.bin": b"1"}})).text
    assert "2 files that are not shown here" in text
    assert "too large for this page" in text
    assert "too large" not in page_of(tree, Store({tree.run_id: {"x.bin": b"1"}})).text


def test_long_numbers_of_text_files_are_rounded() -> None:
    """A table of 17 digits is read by nobody."""
    tree = run("main", 0, 100)
    text = page_of(tree, Store({tree.run_id: {"t.csv": b"a,b,c\n0.12573022101234567,1.5,007.12\n"}})).text
    assert all(number in text for number in ("0.12573", "1.5", "007.12"))
    assert "0.1257302" not in text


def test_what_functions_use_is_shown_once() -> None:
    """Source that several stages use is below the first of them."""
    first, second = (
        run(name, 0, 1, tags={"trackdsl.call": json.dumps({"function": name, "source_hash": name})})
        for name in ("first", "second")
    )
    tree = run("main", 0, 100, first, second)
    stored = Stored(
        code={"first first": {"helper": "h"}, "second second": {"helper": "h"}},
        kept_in=dict.fromkeys(("first", "second", "h"), tree.run_id),
    )
    sources = {"first": "def first(): helper()", "second": "def second(): helper()", "h": "def helper(): ..."}
    files = {
        "trackdsl/changes.json": stored.encode().encode(),
        "trackdsl/source.json": json.dumps(sources).encode(),
    }
    text = page_of(tree, Store({tree.run_id: files})).text
    assert [text.count(source) for source in sources.values()] == [1, 1, 1]


def test_critical_path() -> None:
    """The critical path has the runs that were waited for, from the end backwards; not one beside a longer one."""
    slow, quick = run("slow", 10, 60, run("inner", 20, 55)), run("quick", 10, 30)
    tree = run("main", 0, 100, run("first", 0, 10), slow, quick, run("last", 60, 90))
    steps = {step.span.run.name: step.own for step in critical_path(timeline(tree))}
    assert steps == {"main": 10, "first": 10, "slow": 15, "inner": 35, "last": 30}
    tree = run("main", 0, 100, run("beside", 0, 40), run("overlaps", 10, 60), run("last", 60, 90), run("late", 95, 120))
    steps = {step.span.run.name: step.own for step in critical_path(timeline(tree))}
    assert steps == {"main": 15, "overlaps": 50, "last": 30, "late": 5}


def test_runs_at_the_same_time_are_not_inside_each_other() -> None:
    """A run that began and ended while a sibling ran has a lane of its own, as a thread had it."""
    tree = run("main", 0, 100, run("long", 10, 90), run("short", 20, 30))
    page = page_of(tree)
    bars = page.data()["bars"]
    assert len(set(bars["y"])) == 3
    assert len(page.data()["lanes"]) == 2


def test_how_runs_ended_is_marked() -> None:
    """Failed, killed and running runs, and those from a cache, are marked in the timeline, and by signs in the tree."""
    cached = run("cached", 0, 10, tags={"trackdsl.cached": "1"})
    tree = run("main", 0, 50, cached, failed("bad", 10, 20), run("dead", 20, 30, status="KILLED"), status="RUNNING")
    page = page_of(tree)
    assert page.data()["bars"]["state"] == "rcxk"
    assert all(sign in page.text for sign in "▸↺✕■")
    not_cached = run("main", 0, 50, *(run("a", 0, 10, tags={"trackdsl.cached": text}) for text in ("", "False", "0")))
    assert page_of(not_cached).data()["bars"]["state"] == "ffff"


def test_curves_are_within_the_timeline() -> None:
    """A running run reaches to its last point; of a killed one, the machine is sampled after the last record."""
    for status, duration, length, bar in (
        ("RUNNING", None, 199, 199),
        ("KILLED", 0.05, 199, 50),
        ("FINISHED", 0.05, 50, 50),
    ):
        tree = run("main", 0, 50, run("child", 0, 40), status=status, metrics={"system/cpu_percentage": 1.0})
        data = page_of(replace(tree, duration=duration), Store(values=[1.0] * 200)).data()
        assert (data["length"], data["bars"]["time"][0]) == (length, bar)


def test_thinning_keeps_spikes() -> None:
    """A thinned curve has the first and the last point, and a single spike."""
    points = [(step, 100.0 if step == 777 else 0.0, step) for step in range(10_000)]
    kept = thinned(points, 100)
    assert len(kept) <= 100
    assert {points[0], points[777], points[-1]} <= set(kept)
