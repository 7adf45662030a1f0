"""A `Path` → the text of the path. If it names an existing file, that file is recorded before a handler is asked."""

from __future__ import annotations

import os
from typing import Any

from trackdsl._core.redaction import mask_name
from trackdsl.handlers._handler import Scalar
from trackdsl.handlers.text import Text


class _Path(Text):
    def summary(self, value: Any) -> Scalar:
        return mask_name(os.fsdecode(value))


handler = _Path()
