"""A kernel that the tests of one worker share, as starting one takes a second."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.notebooks.kernels import Kernel


@pytest.fixture(scope="session")
def shared_kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    folder = tmp_path_factory.mktemp("kernel")
    kernel = Kernel(folder, TRACKDSL_SPOOL=str(folder / "spool"), TRACKDSL_MODE="offline", MPLBACKEND="Agg")
    yield kernel
    kernel.end()


@pytest.fixture
def kernel(shared_kernel: Kernel) -> Kernel:
    """The kernel, with an empty namespace, the magics loaded, and nothing recorded."""
    shared_kernel.ok("%reset -f")
    shared_kernel.ok("__import__('tests.notebooks.probe').notebooks.probe.begin(get_ipython())")
    return shared_kernel


@pytest.fixture
def delivering(tmp_path: Path, sqlite_store: str) -> Iterator[Kernel]:
    """A kernel of the test's own, which delivers to a database."""
    kernel = Kernel(tmp_path, TRACKDSL_TRACKING_URI=sqlite_store, TRACKDSL_MODE="online")
    yield kernel
    kernel.end()
