"""`returned_frame.py MEGABYTES`: the frame's size, this process's memory with it, and its peak, in bytes.

The peak is that of a stage that returns the frame, which is kept as Parquet.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from trackdsl import stage


def memory(of: str) -> int:
    """A line of this process's status, in bytes."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith(of)).split()[1]) * 1024


@stage(returns=True)
def clean(data: pd.DataFrame) -> pd.DataFrame:
    """Hands on what it gets."""
    return data


random = np.random.default_rng(0)
rows = int(sys.argv[1]) * 1_000_000 // 80
frame = pd.DataFrame({f"c{index}": random.random(rows) for index in range(10)})
clean(frame[:10])  # What is imported for it is not part of what it takes.
Path("/proc/self/clear_refs").write_text("5")  # The peak starts again, see proc(5).
before = memory("VmRSS")
clean(frame)
sys.stdout.write(f"{frame.memory_usage().sum()} {before} {memory('VmHWM')}\n")
