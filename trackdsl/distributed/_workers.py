"""Whether this process is a worker of a cluster. `import trackdsl` asks, so this imports nothing unless it is one."""

from __future__ import annotations

import sys


def look_for_workers() -> None:
    """Follow the tasks of this process if it is a worker of a cluster.

    trackdsl is imported by the program that starts such a worker, or by its first task.
    """
    if "distributed.worker" in sys.modules:
        from trackdsl.distributed import dask

        dask.follow()
    if "pyspark.worker" in sys.modules:
        from trackdsl.distributed import spark

        spark.follow()
    processes = sys.modules.get("multiprocessing.process")
    if processes is not None and processes.current_process().name.startswith("Dask Worker"):
        from trackdsl._core.patching import opened

        opened("dask")
