"""`subject_values.py MEGABYTES`: what large values cost as arguments and as return values. See `answering`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import numpy as np
import pandas as pd
import xxhash
from answering import Body, answer

from trackdsl import Dataset, experiment, stage

_LEAVES = {f"group{index}": {f"leaf{inner}": 0.5 * inner for inner in range(10)} for index in range(100)}


@stage
def takes(value: Any) -> None: ...


@stage
def uses(value: Annotated[pd.DataFrame, Dataset("train")]) -> None: ...


def hash_buffers(frame: pd.DataFrame) -> None:
    """Hash every column's buffer, with the hash that digests are made of."""
    digest = xxhash.xxh3_128()
    for name in frame:
        digest.update(frame[name].to_numpy().data)
    digest.hexdigest()


def _times(do: Callable[[Any], None], value: Any) -> Body:
    def body(count: int) -> None:
        for _ in range(count):
            do(value)

    return body


def prepare() -> Mapping[str, Body]:
    """Make the frame, and warm up."""
    random = np.random.default_rng(0)
    rows = int(sys.argv[1]) * 1_000_000 // 80
    frame = pd.DataFrame({f"c{index}": random.random(rows) for index in range(10)})
    bodies = {
        "leaves": _times(takes, _LEAVES),
        "number": _times(takes, 1),
        "argument": _times(takes, frame),
        "dataset": _times(uses, frame),
        "hash": _times(hash_buffers, frame),
    }
    for body in bodies.values():
        body(1)
    return bodies


with experiment("values"):
    answer(prepare)
