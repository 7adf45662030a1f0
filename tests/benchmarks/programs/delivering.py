"""Deliver a journal as the delivery process does: `delivering.py SPOOL`. Prints a JSON object of seconds and bytes."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from measured import peak

from trackdsl.delivery.environment import prepare_environment
from trackdsl.delivery.process._worker import Worker
from trackdsl.delivery.service import log_to, open_sink
from trackdsl.journal._origin import read_origin
from trackdsl.journal._spool import journals

prepare_environment()
log_to(sys.stderr)
started = time.process_time()
spool = Path(sys.argv[1])
# As for the others, imports are not counted; a plain server needs MLflow's.
for origin in filter(None, map(read_origin, journals(spool))):
    open_sink(origin.uri, origin.cwd).close()
worker = Worker(spool, open_sink)
before = peak()
begun, busy = time.perf_counter(), time.process_time()
give_up = begun + 3600
while not worker.idle() and time.perf_counter() < give_up:
    if not worker.round():
        time.sleep(0.002)
wall, processor = time.perf_counter() - begun, time.process_time() - busy
worker.close()
json.dump(
    {"wall": wall, "processor": processor, "start": started, "before": before, "peak": peak()},
    sys.stdout,
)
