"""Ctrl-C while trackdsl is imported: a KeyboardInterrupt and a program that ends by the signal, never a crash."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

#: Prints how long the import takes.
MEASURING = "import time; began = time.perf_counter(); from trackdsl import stage; print(time.perf_counter() - began)"
#: Sends itself a SIGINT some time after the beginning of the import.
IMPORTING = """
import os, signal, sys, threading

timer = threading.Timer(float(sys.argv[1]), os.kill, [os.getpid(), signal.SIGINT])
timer.start()
from trackdsl import stage
timer.join()
sys.exit("the interrupt went unnoticed")
"""
#: Builds decoders, and has a signal handler raise in the middle of each.
BUILDING = """
import importlib, msgspec, random, signal
from trackdsl._core import decoders, events

random.seed(1)
armed = False

def interrupt(*_):
    global armed
    if armed:
        armed = False
        raise KeyboardInterrupt

signal.signal(signal.SIGALRM, interrupt)
interrupted = 0
while interrupted < 200:
    kind = importlib.reload(events).AnyEvent  # Types that msgspec has not seen.
    try:
        try:
            armed = True
            signal.setitimer(signal.ITIMER_REAL, random.uniform(0.00001, 0.0005))
            {build}
        finally:
            armed = False
    except KeyboardInterrupt:
        interrupted += 1
print("whole")
"""


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its end."""
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)


def changed_by_python(printed: str) -> bool:
    """Whether Python itself has changed what the handler raised; no library can prevent that."""
    # It ignores an exception in the weak references of the importer.
    lost = "_get_module_lock" in printed and "ignored" in printed
    # Before 3.12, it makes a RuntimeError of one in `__set_name__`, such as that of a class of the standard library.
    replaced = "\nKeyboardInterrupt\n" in printed and "\nRuntimeError: Error calling __set_name__ on " in printed
    return lost or (replaced and sys.version_info < (3, 12))


@pytest.mark.long
@pytest.mark.slow
def test_ctrl_c_in_the_middle_of_the_import() -> None:
    """Interrupted while it imports trackdsl, a program ends by the signal, with a traceback of a KeyboardInterrupt."""
    took = float(run(MEASURING).stdout)
    ended = 0
    for number in range(60):
        done = run(IMPORTING, str(took * number / 60))
        if not changed_by_python(done.stderr):
            assert done.returncode == -signal.SIGINT, done.stderr
            assert done.stderr.rstrip().endswith("KeyboardInterrupt"), done.stderr
            ended += 1
    assert ended > 40


def test_a_handler_that_raises_breaks_in_on_no_decoder() -> None:
    """A handler that raises hundreds of times while decoders are built interrupts none of them, which would crash."""
    done = run(BUILDING.replace("{build}", "decoders.msgpack_decoder(kind)"))
    assert (done.returncode, done.stdout) == (0, "whole\n"), done.stderr


def test_importing_builds_no_decoder() -> None:
    """Importing what recording needs builds no decoder that a signal could interrupt."""
    program = """
import msgspec, sys
real = msgspec.msgpack.Decoder
built = []
for module in (msgspec.json, msgspec.msgpack):
    def make(*arguments, kind=module.Decoder, **options):
        built.append(sys._getframe(1).f_code.co_filename)
        return kind(*arguments, **options)
    module.Decoder = make
from trackdsl import stage
import trackdsl.delivery.program._waiting
print(built)
"""
    assert run(program).stdout == "[]\n"
