"""The card below a cell, in a real kernel."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.notebooks.kernels import Answer, Kernel


def cards(answer: Answer) -> list[dict[str, Any]]:
    """The messages that show or update a card, in order."""
    return [
        message
        for message in answer.messages
        if message["content"].get("transient", {}).get("display_id", "").startswith("trackdsl-")
    ]


def html_of(message: dict[str, Any]) -> str:
    return str(message["content"]["data"]["text/html"])


def text_of(message: dict[str, Any]) -> str:
    return str(message["content"]["data"]["text/plain"])


def test_one_display_is_updated(kernel: Kernel) -> None:
    """A cell has one display: shown when its run begins, and updated while it runs and when it is over."""
    answer = kernel.run(
        "%%stage fit lr=0.1\nimport time\nfrom trackdsl import log_metric, steps\n"
        "for i in steps(range(40), 'epoch'):\n    log_metric('loss', 1 / (i + 1))\n    time.sleep(0.05)",
        cell="c",
    )
    assert answer.status == "ok", answer.error
    first, *updates = cards(answer)
    assert first["msg_type"] == "display_data"
    assert {update["msg_type"] for update in updates} == {"update_display_data"}
    assert len({message["content"]["transient"]["display_id"] for message in (first, *updates)}) == 1
    assert 2 <= len(updates) <= 7  # Within two seconds, at most two a second, and the last.
    assert "RUNNING" in text_of(updates[0])
    assert re.search(r"epoch \d+/40", text_of(updates[0]))
    assert text_of(updates[-1]).splitlines()[0].startswith("fit  FINISHED")
    assert "epoch 40/40" in text_of(updates[-1])
    assert "loss  0.025" in text_of(updates[-1])
    assert not [message for message in answer.messages if message["msg_type"] == "stream"]  # No second bar.
    heights = {tuple(re.findall(r"<div style=\"height:(\d+)px", html_of(message))) for message in (first, *updates)}
    assert len(heights) == 1


def kinds(answer: Answer) -> list[str]:
    """The kinds of the messages that add something to the notebook, in order: `card` for a card."""
    shown = cards(answer)
    return [
        "card" if message in shown else message["msg_type"]
        for message in answer.messages
        if message["msg_type"] in ("display_data", "execute_result", "stream", "error")
    ]


def test_a_cell_that_is_over_at_once_has_one_display(kernel: Kernel) -> None:
    """The card of a cell that is over at once is shown once, with its last state."""
    answer = kernel.run("%%stage fit lr=0.1 --metrics acc\nacc = 0.5", cell="c")
    assert kinds(answer) == ["card"]
    assert cards(answer)[0]["msg_type"] == "display_data"
    assert text_of(cards(answer)[0]).splitlines()[0].startswith("fit  FINISHED")
    assert "acc  0.5" in text_of(cards(answer)[0])


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("print(1)", "stream"),
        ("import sys; print(1, file=sys.stderr)", "stream"),
        ("!echo 1", "stream"),
        ("1 + 1", "execute_result"),
        ("1 / 0", "error"),
        ("display(1)", "display_data"),
        ("import threading; one = threading.Thread(target=print, args=(1,)); one.start(); one.join()", "stream"),
        ("import matplotlib.pyplot as plt\n%matplotlib inline\nplt.figure()\nplt.plot([1]);", "display_data"),
    ],
)
@pytest.mark.parametrize("option", ["", "--no-capture"])
def test_a_card_is_above_what_its_cell_shows(kernel: Kernel, code: str, kind: str, option: str) -> None:
    """Whatever a cell prints or shows first is below its card, which has its last state when the cell is over."""
    # Without the thread, which shows the card if the traceback takes long.
    kernel.ok("import sys\nfrom trackdsl.notebook import live_card\nlive_card._updates.add = lambda card: None")
    answer = kernel.run(f"%%stage fit {option}\n{code}", cell="c")
    kernel.ok("del live_card._updates.add")
    assert kinds(answer)[:2] == ["card", kind]
    first, *updates = cards(answer)
    assert (first["msg_type"], {update["msg_type"] for update in updates}) == ("display_data", {"update_display_data"})
    assert text_of(updates[-1]).splitlines()[0].startswith("fit  FAILED" if kind == "error" else "fit  FINISHED")
    replaced = kernel.value("[one.__module__ for s in (sys.stdout, sys.stderr) for one in (s.write, s.flush)]")
    assert not [module for module in replaced if module.startswith("trackdsl")]


def test_a_card_is_not_captured(kernel: Kernel) -> None:
    """A cell whose output `%%capture` takes has its card, however long it is executed."""
    waits = "import time\nfrom trackdsl.notebook import live_card\ntime.sleep(3 * live_card._LOOK)"
    for code in ("print(1)", waits):
        answer = kernel.run(f"%%stage fit\n%%capture found\n{code}", cell="c")
        assert answer.status == "ok", answer.error
        assert cards(answer)[0]["msg_type"] == "display_data"
        assert text_of(cards(answer)[-1]).splitlines()[0].startswith("fit  FINISHED")
        assert kernel.value("len(found.outputs)") == 0


def test_a_card_is_not_inside_a_widget(kernel: Kernel) -> None:
    """Where a widget may take what a cell shows, the card is shown before the cell's code is executed."""
    kernel.ok("import sys; sys.modules['ipywidgets'] = sys")
    answer = kernel.run("%%stage fit\nx = 1", cell="c")
    kernel.ok("del sys.modules['ipywidgets']")
    assert [text_of(message).split()[1] for message in cards(answer)] == ["RUNNING", "FINISHED"]


def test_a_child_process_shows_no_card(kernel: Kernel) -> None:
    """A forked child that prints does not show the card, and its parent does."""
    kernel.ok("import os\nfrom trackdsl.notebook import live_card\nopen = []\nlive_card._updates.add = open.append")
    answer = kernel.run(
        "%%stage fit\nchild = os.fork()\nif not child:\n    print('child', flush=True)\n    os._exit(open[0].placed)\n"
        "shown = os.waitpid(child, 0)[1]",
        cell="c",
    )
    kernel.ok("del live_card._updates.add")
    assert answer.status == "ok", answer.error
    assert kernel.value("shown") == 0
    assert text_of(cards(answer)[-1]).splitlines()[0].startswith("fit  FINISHED")


@pytest.mark.parametrize(
    ("options", "end", "height"),
    [("--metrics a,b", "", "66"), ("--metrics a,b", "\na + b", "88"), ("--metrics a,b", "\na;", "66"),
     ("--metrics a --returns b", "\na", "44"), ("--metrics a", "\nprint(a)", "44"),
     ("--metrics a,b --no-capture", "\na", "66"), ("", "\n!true", "22")],
)  # fmt: skip
def test_there_is_room_for_the_metrics_of_the_code(kernel: Kernel, options: str, end: str, height: str) -> None:
    """The first execution of a cell has room for each metric that its code names, and for its value, from the start."""
    code = f"%%stage fit {options}\ntrackdsl.log_metric('loss', 1)\na = b = 2{end}"
    kernel.ok("import trackdsl")
    heights = {re.findall(r"height:(\d+)px;overflow:auto", html_of(message))[0] for message in cards(kernel.run(code))}
    assert heights == {height}


def test_the_execution_before_is_compared(kernel: Kernel) -> None:
    """A card shows parameters and metrics with their former values, and the lines of code that changed."""
    kernel.ok("%%stage fit lr=0.1 --metrics acc\nacc = 0.5", cell="c")
    answer = kernel.run("%%stage fit lr=0.3 --metrics acc\nacc = 0.75", cell="c")
    html = html_of(cards(answer)[-1])
    assert "(was 0.1)" in html
    assert "▲ +0.25" in html
    assert "code changed: +2, -2 lines" in html


def test_a_failure_is_shown_and_secrets_are_not(kernel: Kernel) -> None:
    """A card shows the last line of the traceback; a password in source, values or exception is masked."""
    source = "%%stage fit {} password='hunter2-hunter2'\nurl = 'postgresql://me:correct-horse@host/db'\n{}"
    kernel.ok(source.format("", "x = 1"), cell="c")
    answer = kernel.run(source.format("lr=1", "raise ValueError(url)"), cell="c")
    assert answer.status == "error"
    last = cards(answer)[-1]
    assert "ValueError" in text_of(last)
    assert "FAILED" in text_of(last)
    for shown in map(str, (message["content"]["data"] for message in cards(answer))):
        assert "hunter2" not in shown
        assert "correct-horse" not in shown


@pytest.mark.parametrize("off", ["--quiet", "configure"])
def test_cards_can_be_turned_off(kernel: Kernel, off: str) -> None:
    """`--quiet` turns off the card of a cell, and `configure(cards=False)` all cards."""
    if off == "configure":
        kernel.ok("import trackdsl; trackdsl.configure(cards=False)")
    answer = kernel.run(f"%%stage fit {'' if off == 'configure' else off}\nx = 1", cell="c")
    assert answer.status == "ok"
    assert not cards(answer)


def test_a_bar_needs_no_widgets(kernel: Kernel) -> None:
    """Without ipywidgets, `steps` outside of a stage shows a bar of text in a notebook, and no warning."""
    answer = kernel.run(
        "import sys, trackdsl\nkept = sys.modules.get('ipywidgets')\nsys.modules['ipywidgets'] = None\n"
        "for name in ('auto', 'autonotebook', 'notebook'):\n    sys.modules.pop(f'tqdm.{name}', None)\n"
        "for _ in trackdsl.steps(range(3), 'epoch'):\n    pass\n"
        "del sys.modules['ipywidgets']\nif kept is not None:\n    sys.modules['ipywidgets'] = kept"
    )
    assert answer.status == "ok", answer.error
    assert "epoch: 100%" in answer.text
    assert "Warning" not in answer.text


def test_a_card_reads_no_more_than_it_has_time_for(kernel: Kernel) -> None:
    """A cell that records more than its card can read shows the last values, and says that the curve has gaps."""
    answer = kernel.run(
        "%%stage fit\nfrom trackdsl import log_metric\nfor i in range(300_000): log_metric('loss', i)", cell="c"
    )
    last = text_of(cards(answer)[-1])
    assert "loss  299999" in last
    assert "curves have gaps" in last
    assert "loss  1" in text_of(cards(kernel.run("%%stage fit\nlog_metric('loss', 1)", cell="c"))[-1])


def test_a_variable_is_the_last_value_of_its_metric(kernel: Kernel) -> None:
    """`--metrics` records at the last step that the cell has recorded, so that its value is MLflow's latest."""
    kernel.ok("from trackdsl import log_metric")
    loop = "for step in range(5):\n    log_metric('loss', 9 - step, step=step)"
    text = kernel.ok(f"%%stage fit --metrics loss\n{loop}\nloss = 0.5", cell="a")
    captured = "__import__('sys').modules['tests.notebooks.probe']._captured[0].runs[-1]"
    assert kernel.value(f"[[p.step, p.value] for p in {captured}.metrics['loss']][-2:]") == [[4, 5], [4, 0.5]]
    assert re.search(r"loss  0\.5", text)
