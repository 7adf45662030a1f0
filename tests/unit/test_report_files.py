"""Figures and tables of a report: large ones are shown in part, and hostile ones cost little."""

from __future__ import annotations

import base64
import io
import json
import random
import struct
import sys
import tracemalloc
import zlib
from collections.abc import Callable

import pandas as pd
import pytest
from PIL import Image

from tests.unit.test_report import PNG, Page, Store, run
from trackdsl.store_format.report.material import Material, collect
from trackdsl.store_format.report.page import LARGEST, report_html

COLUMNS = [f"c{at}" for at in range(10)]


def material_of(files: dict[str, bytes]) -> Material:
    tree = run("main", 0, 10)
    return collect(tree, Store({tree.run_id: files}))


def frame(rows: int) -> pd.DataFrame:
    numbers = random.Random(rows)
    return pd.DataFrame({name: [numbers.random() for _ in range(rows)] for name in COLUMNS})


def parquet(content: pd.DataFrame) -> bytes:
    file = io.BytesIO()
    content.to_parquet(file)
    return file.getvalue()


def noise(width: int, height: int, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.frombytes("RGB", (width, height), random.Random(0).randbytes(3 * width * height)).save(file, kind)
    return file.getvalue()


def svg(size: int) -> bytes:
    return b'<svg xmlns="http://www.w3.org/2000/svg">' + b"<g/>" * (size // 4) + b"</svg>"


def test_large_files_are_shown_in_part() -> None:
    """Of tables the first rows are shown and the others counted; pictures have fewer pixels; the page stays small."""
    table, large = frame(3000), frame(12_000)
    files = {
        "logged.json": json.dumps({"columns": COLUMNS, "data": table.to_numpy().tolist()}).encode(),
        "rows.json": table.to_json(orient="records").encode(),
        "rows.csv": large.to_csv(index=False).encode(),
        "result.parquet": parquet(large),
        "scatter.svg": svg(545_000),
        "heat.png": noise(1500, 1200),
        "photo.jpg": noise(1500, 1200, "JPEG"),
    }
    assert min(map(len, files.values())) > 500_000
    material = material_of(files)
    shown = {file.path: file for file in material.files}
    assert (shown.keys(), material.listed) == (files.keys(), [])
    more = {path: file.more for path, file in shown.items() if file.rows}
    assert more == {
        "logged.json": (2990, 0),
        "rows.json": (2990, 0),
        "rows.csv": (11_990, 0),
        "result.parquet": (11_990, 0),
    }
    assert {path: file.scaled for path, file in shown.items() if file.scaled} == dict.fromkeys(
        ["heat.png", "photo.jpg"], (1500, 1200)
    )
    first = [f"{value:.6g}" for value in large.iloc[0]]
    assert [list(shown[path].rows[0]) for path in ("rows.csv", "result.parquet")] == [first, first]
    html = report_html(material)
    assert len(html.encode()) < LARGEST
    page = Page(html)
    assert [tag for tag, _ in page.elements].count("img") == 3
    assert "smaller than the file, which has 1,500 \N{MULTIPLICATION SIGN} 1,200 pixels" in page.text
    assert "and 11,990 more rows" in page.text


def test_small_files_come_first() -> None:
    """Large pictures get the room that small figures and tables leave; what does not fit is named with its size."""
    files = {f"{at}.svg": svg(900_000) for at in range(3)} | {f"{at}.png": PNG + bytes(60_000) for at in range(8)}
    material = material_of(files | {"t.csv": b"a\n1\n"})
    assert [file.path for file in material.files] == [*(f"{at}.png" for at in range(8)), "t.csv"]
    assert [(file.path, file.size) for file in material.listed] == [(f"{at}.svg", len(svg(900_000))) for at in range(3)]
    assert "2 files that are not shown" not in Page(report_html(material)).text
    assert [file.path for file in material_of({"0.svg": files["0.svg"], "1.svg": files["1.svg"]}).files] == ["0.svg"]


def test_without_the_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Pillow a large picture is shown as it is if there is room; without pyarrow a Parquet file is named."""
    for name in ("PIL", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, name, None)
    material = material_of(
        {"a.png": PNG + bytes(900_000), "b.png": PNG + bytes(3_000_000), "t.parquet": b"PAR1" + bytes(99)}
    )
    assert [(file.path, file.scaled) for file in material.files] == [("a.png", None)]
    text = Page(report_html(material)).text
    assert "b.png" in text
    assert "3 MB" in text
    assert "t.parquet" in text


def test_a_picture_keeps_its_side_and_its_transparency() -> None:
    """A scaled photograph stands as its camera was held, and what is transparent becomes white."""
    file = io.BytesIO()
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.open(io.BytesIO(noise(1500, 700))).save(file, "JPEG", quality=95, exif=turned)
    clear = io.BytesIO()
    picture = Image.open(io.BytesIO(noise(1000, 1000))).convert("RGBA")
    picture.putalpha(0)
    picture.save(clear, "PNG")
    made = {
        one.path: one.image or "" for one in material_of({"a.jpg": file.getvalue(), "b.png": clear.getvalue()}).files
    }
    photo, white = (
        Image.open(io.BytesIO(base64.b64decode(made[name].partition(",")[2]))) for name in ("a.jpg", "b.png")
    )
    assert photo.height > photo.width
    assert white.convert("RGBA").getpixel((5, 5)) in ((255, 255, 255, 255), (0, 0, 0, 0))


def _bomb() -> bytes:
    """A PNG of a few bytes that says that it has 900 million pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    return PNG[:8] + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(9_000_000))) + bytes(2_000_000)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("bomb.png", _bomb),
        ("torn.png", lambda: noise(1500, 1200)[:2_000_000]),
        ("row.csv", lambda: b"a\n" + b"," * 8_000_000),
        ("quote.csv", lambda: b"a\n" + b'"\n",' * 1_600_000),
        ("field.csv", lambda: b'a\n"' + b"x" * 8_000_000),
        ("numbers.json", lambda: b"[" + b"1," * 4_000_000 + b"1]"),
        ("lists.json", lambda: b'{"columns": ["a"], "data": [' + b"[]," * 2_700_000 + b"[]]}"),
        ("deep.json", lambda: b"[" * 4_000_000),
        ("damaged.parquet", lambda: parquet(frame(9000))[:-9]),
        ("endless.parquet", lambda: parquet(pd.DataFrame({"a": ["x" * 70_000_000]}))),
        ("huge.csv", lambda: b"a\n" * 11_000_000),
    ],
)
def test_hostile_files_cost_little(name: str, content: Callable[[], bytes]) -> None:
    """A file that is larger inside than it looks, or that is no table, is named, and takes little memory."""
    tree = run("main", 0, 10)
    store = Store({tree.run_id: {name: content()}})
    tracemalloc.start()
    try:
        material = collect(tree, store)
        assert tracemalloc.get_traced_memory()[1] < 150_000_000
    finally:
        tracemalloc.stop()
    assert ([file.path for file in material.files], [file.path for file in material.listed]) == ([], [name])
