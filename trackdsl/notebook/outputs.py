"""What a cell prints and shows while it is executed, as far as it is kept: masked, bounded, without scripts."""

from __future__ import annotations

import base64
import binascii
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from trackdsl._core.redaction import mask_text
from trackdsl._recording import artifacts as _artifacts
from trackdsl._recording.emit import append_tags
from trackdsl._recording.printed import PRINTED, Printed, follow_flushes, follow_writes, harmless, tail_of
from trackdsl._runs.run import Run
from trackdsl.errors import format_error, report, reraise_from_signal
from trackdsl.notebook.live_card import CARD_ID

_MAX_TEXT = 20_000
_MAX_HTML = 200_000
_MAX_IMAGE = 5_000_000
_MAX_SHOWN = 50
_IMAGES = {"image/png": "png", "image/jpeg": "jpg"}
_PLOTLY = "application/vnd.plotly.v1+json"
_FRAME = re.compile(r'<table[^>]*class="[^"]*\bdataframe\b')
_ACTIVE = re.compile(r"<\s*(?:script|iframe|object|embed|link|meta|base)\b|\bon\w+\s*=|javascript:", re.IGNORECASE)


class Outputs:
    """Records what is printed and shown between `start` and `stop`, in a Jupyter kernel.

    Args:
        shell: IPython's shell.
        before_first: called before the first output reaches the notebook. It raises no error.
    """

    def __init__(self, shell: Any, before_first: Callable[[], object]) -> None:
        self._shell = shell
        self._before_first: Callable[[], object] | None = before_first
        self._found: list[dict[str, Any]] = []
        self._restore: list[Callable[[], object]] = []

    def start(self) -> bool:
        """Begin to record. The streams themselves stay in place: only `write` and `flush` are wrapped.

        Returns:
            whether everything that the cell displays is noticed.
        """
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if hasattr(stream, "pub_thread"):  # ipykernel's; a terminal shows what is printed, and keeps none of it.
                self._restore.append(follow_writes(stream, partial(self._guarded, self._printed, name)))
                # ipykernel flushes them before it shows a traceback, or a field for `input`.
                self._restore.append(follow_flushes(stream, self._begins))
        complete = True
        for publisher, hook in ((self._shell.display_pub, self._shown), (self._shell.displayhook, self._result)):
            if hasattr(publisher, "register_hook"):
                publisher.register_hook(hook)
                self._restore.append(lambda publisher=publisher, hook=hook: publisher.unregister_hook(hook))  # type: ignore[misc]
            else:
                complete = False
        return complete

    def stop(self) -> None:
        """Stop recording."""
        while self._restore:
            self._restore.pop()()

    def _guarded(self, record: Callable[..., None], *arguments: Any) -> None:
        try:
            record(*arguments)
        except Exception as error:
            reraise_from_signal(error)
            self.stop()
            report("outputs", f"trackdsl records no more outputs of this cell: {format_error(error)}")

    def _begins(self) -> None:
        """Something is about to reach the notebook."""
        if self._before_first is not None:
            self._before_first()
            self._before_first = None

    def _printed(self, name: str, text: str) -> None:
        self._begins()
        last = self._found[-1] if self._found else {}
        if last.get("name") != name:
            last = {"output_type": "stream", "name": name, "printed": Printed()}
            self._found.append(last)
        last["printed"].add(text)

    def _shown(self, message: Any) -> Any:
        if not str(message["content"].get("transient", {}).get("display_id")).startswith(CARD_ID):
            self._begins()
            self._guarded(self._add, "display_data", message)
        return message

    def _result(self, message: Any) -> Any:
        self._begins()
        self._guarded(self._add, "execute_result", message)
        return message

    def _add(self, kind: str, message: Any) -> None:
        content = message["content"]
        if message["header"]["msg_type"] == "clear_output":
            self._found.clear()
        elif message["header"]["msg_type"] != "update_display_data" and len(self._found) < 4 * _MAX_SHOWN:
            found = {"output_type": kind, "data": kept_data(content.get("data", {})), "metadata": {}}
            self._found.append(found if kind == "display_data" else {**found, "execution_count": None})

    def printed(self) -> str:
        """The end of what was printed, masked."""
        return tail_of("".join(one["printed"].text() for one in self._found if "printed" in one))

    def cells(self) -> list[dict[str, Any]]:
        """Everything, as a notebook's file has the outputs of a cell."""
        return [
            {"output_type": "stream", "name": one["name"], "text": tail_of(one["printed"].text())}
            if "printed" in one
            else one
            for one in self._found
        ]

    def record(self, run: Run, *, frames: bool = True) -> None:
        """Keep what was printed and shown as files of a run.

        Args:
            run: the run.
            frames: whether to keep a frame that is the value of the cell, which may be recorded already.
        """
        if printed := self.printed():
            _artifacts.write_text(run, printed, PRINTED)
        counts = {"figures": 0, "frames": 0}
        for one in self._found:
            if "data" not in one or (one["output_type"] == "execute_result" and not frames):
                continue
            for folder, suffix, content in _files(one["data"]):
                counts[folder] += 1
                if counts[folder] <= _MAX_SHOWN:
                    path = f"{folder}/{counts[folder]}.{suffix}"
                    _artifacts.keep(run, path, lambda to, content=content: _write(to, content))  # type: ignore[misc]
        left = {folder: count - _MAX_SHOWN for folder, count in counts.items() if count > _MAX_SHOWN}
        append_tags(run, {f"trackdsl.omitted.{folder}": f"{count} more were shown" for folder, count in left.items()})


def outputs_of(known: Iterable[Any]) -> Iterator[dict[str, Any]]:
    """The outputs of a cell as they stand in a notebook's file: masked, bounded, without scripts."""
    for one in known:
        if one.output_type in ("out_stream", "err_stream"):
            name = "stdout" if one.output_type == "out_stream" else "stderr"
            yield {"output_type": "stream", "name": name, "text": tail_of(_joined(one.bundle.get("stream", "")))}
        else:
            found = {"output_type": one.output_type, "data": kept_data(one.bundle), "metadata": {}}
            yield found if one.output_type == "display_data" else {**found, "execution_count": None}


def kept_data(data: dict[str, Any]) -> dict[str, Any]:
    """The kept forms of a displayed object: images, text, and HTML without scripts."""
    kept: dict[str, Any] = {}
    for kind, value in data.items():
        if kind in _IMAGES:
            if isinstance(value, str) and len(value) <= _MAX_IMAGE:
                kept[kind] = value
        elif kind == "image/svg+xml" or kind == "text/html":
            text = _joined(value)
            if len(text) <= _MAX_HTML and not _ACTIVE.search(text):
                kept[kind] = harmless(mask_text(text))
        elif kind == _PLOTLY:
            text = mask_text(json.dumps(value))
            if len(text) <= _MAX_IMAGE:
                kept[kind] = json.loads(text)
        elif kind in ("text/plain", "text/markdown", "text/latex"):
            kept[kind] = _cut(harmless(mask_text(_joined(value)[: 4 * _MAX_TEXT])))
    return kept


def _files(data: dict[str, Any]) -> Iterator[tuple[str, str, bytes]]:
    """The folder, suffix and content of the files that a displayed object becomes."""
    if _PLOTLY in data:
        yield "figures", "plotly.json", json.dumps(data[_PLOTLY]).encode()
        return
    for kind, suffix in _IMAGES.items():
        if kind in data:
            try:
                yield "figures", suffix, base64.b64decode(data[kind])
            except (ValueError, binascii.Error):
                continue
            return
    if "image/svg+xml" in data:
        yield "figures", "svg", data["image/svg+xml"].encode()
    elif _FRAME.search(data.get("text/html", "")):
        yield "frames", "html", data["text/html"].encode()


def _write(path: Any, content: bytes) -> None:
    path.write_bytes(content)


def _joined(value: Any) -> str:
    return value if isinstance(value, str) else "".join(map(str, value))


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]} …"
