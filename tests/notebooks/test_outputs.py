"""What a cell prints and shows: kept as files of its run, masked, bounded and inert."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.notebooks.kernels import Kernel
from trackdsl._recording.printed import harmless, tail_of
from trackdsl.notebook.outputs import kept_data

SECRET = "ghp_0123456789abcdefghijABCDEFGHIJ012345"


def test_printed_text(kernel: Kernel) -> None:
    """What a cell prints, to both streams and from a shell command, is a file of its run and arrives as before."""
    cell = "import sys\nprint('one')\nprint('two', file=sys.stderr)\n!echo three\nsys.stdout.write('four\\n');"
    printed = kernel.ok(f"%%stage talk --quiet\n{cell}").split()  # Nobody orders two streams.
    assert sorted(printed) == ["four", "one", "three", "two"]
    assert sorted(kernel.one("talk").artifacts["output.txt"].split()) == ["four", "one", "three", "two"]
    assert "trackdsl" not in kernel.value("sys.stdout.write.__module__")


def test_only_the_end_of_much_text(kernel: Kernel) -> None:
    """Of ten million characters the end is kept, and of a progress bar its last state."""
    kernel.ok("%%stage much\nfor at in range(1000): print(at, 'x' * 10000)\nprint('\\rabc' * 1000, end='')")
    text = kernel.one("much").artifacts["output.txt"]
    assert 60_000 < len(text) < 66_000
    assert text.endswith("x\nabc")


def test_a_failed_cell_keeps_its_text(kernel: Kernel) -> None:
    """What a cell printed before it failed is kept."""
    assert kernel.run("%%stage bad\nprint('before')\n1 / 0").status == "error"
    assert kernel.one("bad").artifacts["output.txt"] == "before\n"


def test_figures_that_are_shown(kernel: Kernel) -> None:
    """Figures of matplotlib and plotly that a cell shows are files."""
    kernel.ok("%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.close('all')")
    kernel.ok("%%stage plot\nfor _ in range(2):\n    plt.figure(); plt.plot([1, 2])")
    kernel.ok("import plotly.graph_objects as go\nfrom IPython.display import display")
    kernel.ok("%%stage web\ndisplay(go.Figure(go.Scatter(y=[1, 2])))")
    files = kernel.one("plot").artifacts
    assert [path for path in files if path.startswith("figures")] == ["figures/1.png", "figures/2.png"]
    assert files["figures/1.png"][1:4] == "PNG"
    assert json.loads(kernel.one("web").artifacts["figures/1.plotly.json"])["data"][0]["y"] == [1, 2]


def test_frames_that_are_shown(kernel: Kernel) -> None:
    """A frame that a cell displays is a file; one that is its value is recorded once, as a value."""
    kernel.ok("import pandas as pd\nfrom IPython.display import display\ndf = pd.DataFrame({'a': [1]})")
    kernel.ok("%%stage shows\ndisplay(df)\ndf")
    assert sorted(kernel.one("shows").artifacts) == ["cell.py", "frames/1.html", "shows.parquet"]
    assert "dataframe" in kernel.one("shows").artifacts["frames/1.html"]


def test_no_capture(kernel: Kernel) -> None:
    """With `--no-capture` no output of a cell is kept."""
    kernel.ok("%%stage none --no-capture\nprint(1)\n2")
    assert list(kernel.one("none").artifacts) == ["cell.py"]


def test_hostile_outputs(kernel: Kernel) -> None:
    """Secrets are masked, scripts and escape sequences are left out, huge texts are cut."""
    kernel.ok(
        "%%stage hostile\nfrom IPython.display import HTML, display\n"
        f"print('token={SECRET}')\ndisplay(HTML('<table class=\"dataframe\"><script>alert(1)</script></table>'))\n"
        "print('\\x1b]0;owned\\x07\\x1b[2Jplain')\n"
        "class Big:\n    def __repr__(self): return 'y' * 10**7\ndisplay(Big())"
    )
    found = json.dumps(vars(kernel.one("hostile")))
    assert "ghp_0123456789" not in found.replace(json.dumps(kernel.one("hostile").artifacts["cell.py"]), "")
    assert not [path for path in kernel.one("hostile").artifacts if path.startswith("frames")]
    assert "\x1b" not in kernel.one("hostile").artifacts["output.txt"]
    assert kernel.one("hostile").artifacts["output.txt"].endswith("plain\n")
    assert len(found) < 50_000


@given(st.text())
def test_control_characters(text: str) -> None:
    """No control character is left but line breaks, tabs and colours."""
    kept = harmless(text + "\x1b[31mred\x1b[0m\x1b[2J\x1b]8;;http://x\x07\x9b2J\x9d8;;http://x\x9c\u202e\u2066")
    assert kept.endswith("\x1b[31mred\x1b[0m")
    before = kept[: -len("\x1b[31mred\x1b[0m")]
    assert not {one for one in before if unicodedata.category(one) == "Cc"} - set("\n\t\r\x1b")
    assert not set(before) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def test_displays_have_no_control_characters() -> None:
    """No form of a displayed object has control characters, also none of ISO 6429 or of the writing direction."""
    nasty = "<b>\x1b]0;x\x07\x9b2J\u202eleft\u2066</b>"
    kept = kept_data(dict.fromkeys(("text/html", "text/plain", "image/svg+xml", "text/markdown"), nasty))
    assert set(kept.values()) == {"<b>left</b>"}


@pytest.mark.parametrize(
    "html", ["<script>1</script>", '<img onerror="x()">', '<a href="javascript:x()">', "<iframe src=x>", "<SCRIPT>"]
)
def test_active_html_is_left_out(html: str) -> None:
    """HTML that could run code is left out; its text stays."""
    assert kept_data({"text/html": f"<b>{html}</b>", "text/plain": "<b>"}) == {"text/plain": "<b>"}


def test_a_secret_at_the_cut_is_masked() -> None:
    """A secret at the point where a long text is cut is masked as a whole."""
    for shift in range(0, 60, 7):
        assert "0123456789abc" not in tail_of("a\n" * 40_000 + f"token={SECRET}\n" + "b" * (64_000 - shift))
