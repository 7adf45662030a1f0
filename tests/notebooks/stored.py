"""Executes the notebooks of `notebooks/`, for the test that compares their outputs and for storing them again.

`python -m tests.notebooks.stored` executes all of them, or those that it is given, and writes their outputs into their
files. It needs Chromium for pictures of HTML. The metadata of a cell may have, under `trackdsl`:

- `picture`: what the cell shows is the picture at the top of the notebook
- `varies`: the cell shows something else each time, so nothing compares it
- `executed_before`: sources that are executed first, as if the reader had edited the cell and executed it again
"""

from __future__ import annotations

import argparse
import base64
import io
import math
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.client import KernelClient
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient
from nbformat import NotebookNode

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
#: What all of them have, no matter who stores them.
_METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {
        "file_extension": ".py", "mimetype": "text/x-python", "name": "python", "pygments_lexer": "ipython3",
    },
}  # fmt: skip
#: In seconds, for one cell on a busy machine.
_PATIENCE = 180
_FLOAT = re.compile(r"(-?\d+\.\d+(?:e[-+]?\d+)?)")
#: What differs between two executions: rows of times, which are left out where they are alike, times, ids and digests,
#: curves, spaces between columns.
_VARYING = (
    (re.compile(r"^[^\n│]*│ *\d+(\.\d+)? ?(µs|ms|s|min|h)\b[^\n│]*│[^\n]*(\n|$)", re.MULTILINE), ""),
    (re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d(\.\d+)?)?([+-]\d\d:\d\d|Z)?"), "TIME"),
    (re.compile(r"(?<!\w)[+-]?\b\d+(\.\d+)? ?(µs|ms|s|min|h)\b( \d+ ?(s|min)\b)?"), "DURATION"),
    (re.compile(r"(?<![\w.])[0-9a-f]{6,}(-[0-9a-f]+)*\b"), "ID"),
    (re.compile("[▁▂▃▄▅▆▇█]+"), "CURVE"),
    (re.compile("[━─]+"), "━"),
    (re.compile(r"[ \t]+"), " "),
)


def read(path: Path) -> NotebookNode:
    """A notebook's file."""
    return nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]


def execute(notebook: NotebookNode, name: str, folder: Path) -> None:
    """Execute the cells of a notebook in a kernel of its own, as JupyterLab does, and put the outputs into them.

    Args:
        notebook: the notebook.
        name: the name of its file, without the suffix.
        folder: an empty folder, for the kernel's working directory and its spool.
    """
    work = folder / "work"
    work.mkdir(parents=True)
    path = work / f"{name}.ipynb"
    nbformat.write(notebook, path)  # type: ignore[no-untyped-call]
    manager = KernelManager(kernel_name="python3")
    client = NotebookClient(notebook, km=manager, timeout=_PATIENCE, coalesce_streams=True, record_timing=False)
    with client.setup_kernel(cwd=str(work), env=_environment(folder, path)):
        assert client.kc is not None
        for at, cell in enumerate(notebook.cells):
            _send_id(client.kc, cell.id)
            shown = cell.source
            for source in [*_about(cell).get("executed_before", ()), shown]:
                cell.source = source
                client.execute_cell(cell, at)
    notebook.metadata = nbformat.from_dict(_METADATA)  # type: ignore[no-untyped-call]


def _environment(folder: Path, notebook: Path) -> dict[str, str]:
    ours = ("TRACKDSL_", "MLFLOW_", "MPLBACKEND", "JPY_", "COLUMNS", "LINES")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    programs = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", os.defpath)])
    paths = os.pathsep.join([str(ROOT), *filter(None, [kept.get("PYTHONPATH")])])
    # Jupyter's servers give the kernel the notebook's path in this variable.
    return {
        **kept,
        "PATH": programs,  # as in an environment that is activated
        "PYTHONPATH": paths,
        "TRACKDSL_SPOOL": str(folder / "spool"),
        "JPY_SESSION_NAME": str(notebook),
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        "PYTHONWARNINGS": "ignore:IProgress not found",  # of tqdm, which MLflow imports
    }


def _send_id(client: KernelClient, cell: str) -> None:
    """Send the id of a cell with it, as front ends do, but nbclient does not."""
    session = client.session
    make = type(session).msg

    def msg(msg_type: str, content: Any = None, *rest: Any, metadata: Any = None, **more: Any) -> Any:
        if msg_type == "execute_request":
            metadata = {**(metadata or {}), "cellId": cell}
        return make(session, msg_type, content, *rest, metadata=metadata, **more)

    session.msg = msg  # type: ignore[method-assign]


def _about(cell: NotebookNode) -> dict[str, Any]:
    return dict(cell.metadata.get("trackdsl", {}))


def outputs(notebook: NotebookNode) -> Iterator[tuple[str, str]]:
    """What each output of a notebook is, and its text; without what is written to stderr."""
    for cell in notebook.cells:
        if cell.cell_type != "code" or _about(cell).get("varies"):
            continue
        for output in cell.outputs:
            if output.output_type == "stream":
                if output.name == "stdout":
                    yield cell.id, output.text
            elif output.output_type == "error":
                yield cell.id, f"{output.ename}: {output.evalue}"
            else:
                yield f"{cell.id} {' '.join(sorted(output.data))}", output.data.get("text/plain", "")


def differences(stored: NotebookNode, executed: NotebookNode) -> list[str]:
    """Where the outputs of two notebooks differ. Numbers may differ a little, as other versions of libraries do."""
    before, now = list(outputs(stored)), list(outputs(executed))
    if [kind for kind, _ in before] != [kind for kind, _ in now]:
        return [f"outputs were {[kind for kind, _ in before]} and are {[kind for kind, _ in now]}"]
    return [
        f"{kind} was\n{one}\nand is\n{other}"
        for (kind, one), (_, other) in zip(before, now, strict=True)
        if not same(one, other)
    ]


def same(one: str, other: str) -> bool:
    """Whether two texts are the same but for what differs each time, and for small differences of numbers."""
    parts = [_FLOAT.split(_steady(text)) for text in (one, other)]
    if len(parts[0]) != len(parts[1]):
        return False
    return all(
        math.isclose(float(a), float(b), rel_tol=0.01, abs_tol=0.005) if at % 2 else a == b
        for at, (a, b) in enumerate(zip(*parts, strict=True))
    )


def _steady(text: str) -> str:
    for pattern, instead in _VARYING:
        text = pattern.sub(instead, text)
    return "\n".join(line.strip() for line in text.splitlines() if line.strip())


def traces_of_the_machine(notebook: NotebookNode) -> list[str]:
    """Names of folders, hosts and users in a notebook, which mean nothing to its readers."""
    text = re.sub(r'"[\w+/=\\\n]{400,}"', '""', nbformat.writes(notebook))  # type: ignore[no-untyped-call]
    found = re.findall(r"(?:file://|[\s\"'(=])(/(?:tmp|root|home|work|Users|private|var|usr|opt)/[^\s\"']*)", text)
    host = socket.gethostname()
    return [*found, *([host] if host and re.search(rf"\b{re.escape(host)}\b", text) else [])]


def _picture(notebook: NotebookNode) -> bytes:
    """The picture that a cell shows, for the top of the notebook."""
    cell = next(cell for cell in notebook.cells if _about(cell).get("picture"))
    shown = [output.data for output in cell.outputs if "data" in output]
    if "image/png" in shown[-1]:
        return base64.b64decode(shown[-1]["image/png"])
    return _photo("<br>".join(data["text/html"] for data in shown))


def _photo(html: str) -> bytes:
    """HTML as Chromium shows it, without the empty margin."""
    from PIL import Image, ImageChops

    with tempfile.TemporaryDirectory() as name:
        page, photo = Path(name, "page.html"), Path(name, "photo.png")
        page.write_text(f"<!doctype html><meta charset=utf-8><body style='font:14px sans-serif'>{html}", "utf-8")
        subprocess.run(
            ["chromium", "--headless", "--no-sandbox", "--hide-scrollbars", "--window-size=1000,1400",
             f"--screenshot={photo}", str(page)],
            check=True, capture_output=True,
        )  # fmt: skip
        with Image.open(photo) as opened:
            image = opened.convert("RGB")
    box = ImageChops.difference(image, Image.new("RGB", image.size, "white")).getbbox()
    assert box is not None, "the cell shows nothing"
    kept = io.BytesIO()
    edge = (max(box[0] - 8, 0), max(box[1] - 8, 0), min(box[2] + 8, image.width), min(box[3] + 8, image.height))
    image.crop(edge).quantize(128).save(kept, "png", optimize=True)
    return kept.getvalue()


def store(path: Path) -> None:
    """Execute a notebook, and write its outputs and its picture into its file."""
    from tests.conftest import end_delivery

    notebook = read(path)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            execute(notebook, path.stem, folder)
        finally:
            end_delivery(folder / "spool")
    seconds = time.monotonic() - began
    notebook.cells[0].attachments = {"picture.png": {"image/png": base64.b64encode(_picture(notebook)).decode("ascii")}}
    traces = traces_of_the_machine(notebook)
    nbformat.write(notebook, path)  # type: ignore[no-untyped-call]
    print(f"{path.name}: {seconds:.0f} s, {path.stat().st_size / 1000:.0f} kB", *traces)  # noqa: T201 - a command


def main() -> None:
    """Store the outputs of notebooks."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("notebooks", nargs="*", type=Path, help="by default all")
    for path in parser.parse_args().notebooks or NOTEBOOKS:
        store(path)


if __name__ == "__main__":
    sys.exit(main())
