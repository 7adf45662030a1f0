"""What delivery reads of the source of programs: each program counts with what it ran, also beside others."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from trackdsl._core.source_text import digest_of
from trackdsl.delivery.summaries._program_contents import PROGRAM, ProgramContents, ProgramReader
from trackdsl.journal._origin import Origin, Project

MAIN = "def load(n):\n    return helper(n)\n"
#: How many seconds ago the files were written, and edited.
WRITTEN, EDITED = 1000, 500


@pytest.fixture
def reader() -> Iterator[ProgramReader]:
    """What the delivery process reads."""
    made = ProgramReader(own=True)
    yield made
    made.close()


@pytest.fixture
def edit(tmp_path: Path) -> Callable[[str, str, int], None]:
    """Writes a file of the project as if this many seconds ago; there are two."""

    def write(name: str, text: str, ago: int) -> None:
        path = tmp_path / name
        path.write_text(text)
        os.utime(path, (time.time() - ago,) * 2)

    write("lib.py", "def helper(x):\n    return x + 1\n", WRITTEN)
    write("main.py", f"from lib import helper\n{MAIN}load(1)\n", WRITTEN)
    return write


def program(folder: Path, prefix: str, ago: int) -> Origin:
    """A program that began this many seconds ago; a negative number is in the future."""
    began = time.time_ns() - ago * 10**9
    return Origin(
        uri="", cwd=str(folder), host="", pid=1, user="", python=sys.version, version="", source="main.py",
        time=began, prefix=prefix, project=Project((str(folder),)),
    )  # fmt: skip


def ended(reader: ProgramReader, origin: Origin) -> tuple[list[str], list[str]]:
    """The versions of the helper that a program is noted with, and what is said to be unknown."""
    site = ("__main__.load", str(Path(origin.cwd, "main.py")), digest_of(MAIN))
    contents: ProgramContents = reader.of_program(origin, [PROGRAM, site])
    found = {one.text for uses in contents.code.values() for name, one in uses.items() if name == "lib.helper"}
    return sorted(found), contents.unknown


def read_all_sources(reader: ProgramReader, origin: Origin) -> None:
    """What delivery does when a program has called its functions for the first time."""
    reader.begin(origin)
    reader.read_site(origin, PROGRAM)
    reader.read_site(origin, ("__main__.load", str(Path(origin.cwd, "main.py")), digest_of(MAIN)))


def test_a_later_program_does_not_change_what_an_earlier_one_ran(
    tmp_path: Path, reader: ProgramReader, edit: Callable[[str, str, int], None]
) -> None:
    """A file is edited between the beginnings of two programs: each is noted with the version that it ran."""
    first, second = program(tmp_path, "a", 800), program(tmp_path, "b", -200)
    read_all_sources(reader, first)
    edit("lib.py", "def helper(x):\n    return x + 1000\n", -100)  # After this look, and before the second program.
    read_all_sources(reader, second)
    assert ended(reader, first) == (["def helper(x):\n    return x + 1\n"], [])
    assert ended(reader, second) == (["def helper(x):\n    return x + 1000\n"], [])


def test_what_a_later_program_ran_is_not_taken_for_what_an_earlier_one_ran(
    tmp_path: Path, reader: ProgramReader, edit: Callable[[str, str, int], None]
) -> None:
    """Of the earlier program the source was not read in time: the edited file is unknown, and not the later one's."""
    first, second = program(tmp_path, "a", 800), program(tmp_path, "b", 100)
    edit("lib.py", "def helper(x):\n    return x + 1000\n", EDITED)
    read_all_sources(reader, second)
    unknown = ["edited after the program began, so the source that ran is unknown: lib.py"]
    assert ended(reader, first) == ([], unknown)
    assert ended(reader, second) == (["def helper(x):\n    return x + 1000\n"], [])


def test_a_file_that_only_an_earlier_program_does_not_know_is_known_of_a_later_one(
    tmp_path: Path, reader: ProgramReader, edit: Callable[[str, str, int], None]
) -> None:
    """What is unknown of a program that was looked at first is not a gap of a program that began after the edit."""
    first, second = program(tmp_path, "a", 800), program(tmp_path, "b", 100)
    edit("lib.py", "def helper(x):\n    return x + 1000\n", EDITED)
    read_all_sources(reader, first)
    assert ended(reader, second) == (["def helper(x):\n    return x + 1000\n"], [])
    assert ended(reader, first)[0] == []


@pytest.mark.usefixtures("edit")
def test_programs_that_began_after_the_last_edit_share_what_is_read(tmp_path: Path, reader: ProgramReader) -> None:
    """The ranks of a launch run the same files, so that what they use is found once."""
    ranks = [program(tmp_path, f"{rank}", 100) for rank in range(3)]
    site = ("__main__.load", str(tmp_path / "main.py"), digest_of(MAIN))
    read = [reader.read_site(rank, site) for rank in ranks]
    assert read[0] is not None
    assert read[0] is read[1] is read[2]
    later = reader.read_site(program(tmp_path, "later", -100), site)
    assert later is read[0], "its texts are in memory once, although the files were read again"
