"""One reading of a machine and of a program on it: CPU, memory, disk, network, GPUs.

Metrics that MLflow has too have MLflow's names (see mlflow/system_metrics/metrics), so that its UI shows both alike.
MLflow has no metrics for disk input and output, nor for the program itself.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from typing import Any

import psutil

_MEGABYTE = 1e6


class MachineReadings:
    """Readings of the CPUs, the memory and the GPUs of this machine."""

    def __init__(self) -> None:
        self._gpus = _gpus()
        self._times = psutil.cpu_times()

    def read(self) -> dict[str, float]:
        """The current values, by name; the use of the CPUs is the average since the last reading."""
        found = {**self._processor(), **_memory()}
        for number, handle in enumerate(self._gpus):
            found |= {f"gpu_{number}_{name}": value for name, value in _of_gpu(handle)}
        return found

    def _processor(self) -> dict[str, float]:
        before, self._times = self._times, psutil.cpu_times()
        spent = [after - before for after, before in zip(self._times, before, strict=True)]
        idle = sum(getattr(self._times, name, 0.0) - getattr(before, name, 0.0) for name in ("idle", "iowait"))
        # The times of guests are included in others.
        whole = sum(spent) - sum(
            getattr(self._times, name, 0.0) - getattr(before, name, 0.0) for name in ("guest", "guest_nice")
        )
        return {"cpu_utilization_percentage": 100 * (1 - idle / whole)} if whole > 0 else {}


class ProgramReadings:
    """Readings of a program since a moment, from which counters begin.

    Args:
        pid: of the program; processes that it started belong to it.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._at = time.monotonic()
        #: By process, its CPU seconds and disk bytes at the last reading.
        self._seen: dict[tuple[int, float], tuple[float, int, int]] = {}
        self._read = self._written = 0
        for process, used in _tree(pid):
            self._seen[process] = used[:3]

    def read(self) -> dict[str, float]:
        """The current values, by name; none once the program has ended."""
        now = time.monotonic()
        seconds, self._at = now - self._at, now
        busy, resident, seen = 0.0, 0, {}
        for process, (cpu, read, written, memory) in _tree(self._pid):
            before = self._seen.get(process, (0.0, 0, 0))
            busy += cpu - before[0]
            self._read += read - before[1]
            self._written += written - before[2]
            resident += memory
            seen[process] = (cpu, read, written)
        if not seen:
            return {}
        self._seen = seen
        found = {
            "process_memory_megabytes": resident / _MEGABYTE,
            "process_disk_read_megabytes": self._read / _MEGABYTE,
            "process_disk_write_megabytes": self._written / _MEGABYTE,
        }
        return {**found, "process_cpu_percentage": 100 * busy / seconds} if seconds > 0 else found


class Readings:
    """Readings of this machine and of a program since a moment, from which counters begin.

    Args:
        pid: of the program; processes that it started belong to it.
    """

    def __init__(self, pid: int) -> None:
        self._machine = MachineReadings()
        self._disk, self._network = psutil.disk_io_counters(), psutil.net_io_counters()
        self._program = ProgramReadings(pid)

    def read(self) -> dict[str, float]:
        """The current values, by name.

        Percentages of CPUs are averages since the last reading. Megabytes are 10⁶ bytes; for disk and network
        they count from the first reading. A program that keeps two cores busy has 200 %.
        """
        found = {**self._machine.read(), **_room(), **self._traffic(), **self._program.read()}
        return {f"system/{name}": round(value, 3) for name, value in found.items()}

    def _traffic(self) -> dict[str, float]:
        found = {}
        disk, network = psutil.disk_io_counters(), psutil.net_io_counters()
        if disk is not None and self._disk is not None:  # It is None in some containers.
            found["disk_read_megabytes"] = (disk.read_bytes - self._disk.read_bytes) / _MEGABYTE
            found["disk_write_megabytes"] = (disk.write_bytes - self._disk.write_bytes) / _MEGABYTE
        if network is not None and self._network is not None:
            found["network_receive_megabytes"] = (network.bytes_recv - self._network.bytes_recv) / _MEGABYTE
            found["network_transmit_megabytes"] = (network.bytes_sent - self._network.bytes_sent) / _MEGABYTE
        return found


def _tree(pid: int) -> Iterator[tuple[tuple[int, float], tuple[float, int, int, int]]]:
    """Each process of a program: pid and start time; CPU seconds, bytes read, written and resident."""
    try:
        program = psutil.Process(pid)
        processes = [program, *program.children(recursive=True)]
    except psutil.Error:
        return
    for process in processes:
        with contextlib.suppress(psutil.Error), process.oneshot():
            cpu = process.cpu_times()
            read = written = 0
            with contextlib.suppress(psutil.Error, AttributeError):  # Not on macOS.
                traffic = process.io_counters()
                read, written = traffic.read_bytes, traffic.write_bytes
            used = (cpu.user + cpu.system, read, written, process.memory_info().rss)
            yield (process.pid, process.create_time()), used


def _memory() -> dict[str, float]:
    memory = psutil.virtual_memory()
    return {
        "system_memory_usage_megabytes": memory.used / _MEGABYTE,
        "system_memory_usage_percentage": 100 * memory.used / memory.total,
    }


def _room() -> dict[str, float]:
    room = psutil.disk_usage(os.sep)
    return {
        "disk_usage_percentage": room.percent,
        "disk_usage_megabytes": room.used / _MEGABYTE,
        "disk_available_megabytes": room.free / _MEGABYTE,
    }


def _gpus() -> list[Any]:
    """Handles of the GPUs that NVML knows; none if there is no driver."""
    try:
        import pynvml

        pynvml.nvmlInit()
        return [pynvml.nvmlDeviceGetHandleByIndex(number) for number in range(pynvml.nvmlDeviceGetCount())]
    except Exception:  # Whatever the error is, no card can be read.
        return []


def _of_gpu(handle: Any) -> Iterator[tuple[str, float]]:
    import pynvml

    with contextlib.suppress(pynvml.NVMLError):
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        yield "memory_usage_percentage", 100 * memory.used / memory.total
        yield "memory_usage_megabytes", memory.used / _MEGABYTE
    with contextlib.suppress(pynvml.NVMLError):
        yield "utilization_percentage", pynvml.nvmlDeviceGetUtilizationRates(handle).gpu
    with contextlib.suppress(pynvml.NVMLError):
        used = pynvml.nvmlDeviceGetPowerUsage(handle) / 1000
        yield "power_usage_watts", used
        yield "power_usage_percentage", 100 * used / (pynvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1000)
