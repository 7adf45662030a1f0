"""Text → a UTF-8 file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trackdsl._core.redaction import mask_prose, mask_text
from trackdsl.handlers._handler import Handler, Placeholder, Scalar


class Text(Handler):
    """Texts, and values that are written as their text."""

    suffix = ".txt"
    is_text = True
    suffixes = (".html", ".md", ".csv", ".json", ".yaml", ".yml", ".log", ".xml", ".svg", ".sql", ".py")

    def content(self, value: Any) -> Any:
        """See `Handler`."""
        return value if isinstance(value, Placeholder) else self.summary(value)

    def summary(self, value: Any) -> Scalar:
        """See `Handler`."""
        return mask_text(str.__str__(value))

    def write(self, value: Any, path: Path) -> None:
        """See `Handler`."""
        # The text of an object may contain its fields, as that of a dataclass does.
        text = mask_text(str.__str__(value)) if isinstance(value, str) else mask_prose(str(value))
        path.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")

    def read(self, path: Path) -> str:
        """See `Handler`."""
        with open(path, encoding="utf-8", newline="") as file:
            return file.read()


handler = Text()
