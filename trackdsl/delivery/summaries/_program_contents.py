"""What a program consists of, read a moment after it began: source, packages, and changes that are not committed.

The delivery process reads all of it, so the program spends no time on it. What was edited since the program began may
not be what ran: it counts as unknown.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tempfile
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from trackdsl._core.redaction import choosing, mask_text
from trackdsl.journal._origin import Origin, Project
from trackdsl.store_format.changes.modules import Modules
from trackdsl.store_format.changes.packages import installed
from trackdsl.store_format.changes.source import Definition, Used, used_by, used_by_program

Site = tuple[str, str, str]
#: Stands for the program's file.
PROGRAM: Site = ("", "", "")
#: Programs and functions that are remembered.
_MOST_PROJECTS, _MOST_SITES, _MOST_JOURNALS = 8, 2000, 200
#: In bytes.
_LONGEST_PATCH = 1 << 18
#: How long git may take, in seconds.
_PATIENCE = 10.0
#: The options keep a stranger's repository from running commands.
_GIT = [
    *("git", "-c", "core.fsmonitor=", "-c", "core.hooksPath=/dev/null", "-c", "core.quotePath=off"),
    *("diff", "--no-ext-diff", "--no-textconv", "--no-color", "--src-prefix=a/", "--dst-prefix=b/", "HEAD"),
]
_CHANGED = re.compile(r"^(?:\+\+\+ b/|--- a/)(.+)$", re.MULTILINE)
_INSTALLED = ("site-packages", "dist-packages")


@dataclass
class ProgramContents:
    """The source, packages and uncommitted changes of a program, as far as they are known.

    Attributes:
        packages: the versions of the installed packages, by name; None if they are not known.
        patch: the changes that are not committed, with secrets masked; None if they are not known.
        code: by function and hash of its source: what it uses of the project, by name.
        unknown: sentences about what is not known.
        partial: the keys of `code` of which not all is known.
    """

    packages: dict[str, str] | None = None
    patch: str | None = None
    code: dict[str, dict[str, Definition]] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    partial: list[str] = field(default_factory=list)


@dataclass
class _Journal:
    """What is known of one program.

    Attributes:
        packages, git: its packages and working tree, read when the first root run of its journal began.
        used: what each of its functions uses, as it was first read for this program: a later program of the same
            functions may have run other files.
    """

    packages: dict[str, str] | None
    git: _Git
    used: OrderedDict[Site, Used | None] = field(default_factory=OrderedDict)


@dataclass(frozen=True)
class _Reading:
    """What a function uses, for other programs that run it.

    Attributes:
        time: when it was read, in nanoseconds since 1970.
        newest: when the last file of the project was edited, as far as they were read then.
        used: what was found.
    """

    time: int
    newest: int
    used: Used

    def counts_for(self, began: int) -> bool:
        """Whether a program that began at this time ran these files: none was edited between its start and now."""
        return self.newest <= began <= self.time and not self.used.edited


class ProgramReader:
    """Reads and caches the source, packages and uncommitted changes of programs.

    Args:
        own: whether this process belongs to delivery, so that names of secrets of its programs may be chosen here.
    """

    def __init__(self, *, own: bool) -> None:
        self._own = own
        self._modules: OrderedDict[tuple[str, ...], Modules] = OrderedDict()
        #: The last reading of each function's source, by the program's file, shared by all programs: the ranks of a
        #: launch run the same code.
        self._readings: OrderedDict[tuple[Site, str], _Reading] = OrderedDict()
        self._journals: OrderedDict[str, _Journal] = OrderedDict()

    def begin(self, origin: Origin) -> None:
        """Read the packages and the working tree of a program whose first root run begins; git is not waited for."""
        if origin.prefix not in self._journals and origin.project is not None:
            self._journals[origin.prefix] = _Journal(_packages(origin, origin.project), _Git(origin))
            while len(self._journals) > _MOST_JOURNALS:
                self._journals.popitem(last=False)[1].git.close()

    def read_site(self, origin: Origin, site: Site) -> Used | None:
        """The definitions of its project that a function, or the program's file, uses.

        They are read now, unless they were read for this program before.
        """
        if site == PROGRAM:
            site = ("", _file_of(origin), "")
        if origin.project is None or not site[1]:
            return None
        self.begin(origin)
        known = self._journals[origin.prefix].used
        if site not in known:
            known[site] = self._read_now(origin, origin.project, site)
            while len(known) > _MOST_SITES:
                known.popitem(last=False)
        return known[site]

    def _read_now(self, origin: Origin, project: Project, site: Site) -> Used | None:
        main = _file_of(origin)
        reading = self._readings.get((site, main))
        if reading is not None and reading.counts_for(origin.time):
            return reading.used
        now, modules = time.time_ns(), self._modules_of(origin, project)
        with self._names(project):
            used = _used_by(site, modules, origin.time, main)
        if used is not None:
            if reading is not None and reading.used == used:
                used = reading.used  # So that the texts are in memory once, and not for each program.
            self._readings[site, main] = _Reading(now, modules.newest, used)
            while len(self._readings) > _MOST_SITES:
                self._readings.popitem(last=False)
        return used

    def of_program(self, origin: Origin, sites: Iterable[Site]) -> ProgramContents:
        """The source, packages and uncommitted changes of a program whose root run has ended."""
        contents = ProgramContents()
        if origin.project is None:
            return contents
        self.begin(origin)
        journal = self._journals[origin.prefix]
        contents.packages = journal.packages
        if contents.packages is None:
            contents.unknown.append("packages were installed or removed after the program began")
        with self._names(origin.project):
            contents.patch = journal.git.patch()
        if contents.patch is None:
            contents.unknown.append("the uncommitted changes at the program's start are unknown")
        edited, masked = set[str](), dict[str, None]()
        for site in sites:
            used = self.read_site(origin, site)
            if used is not None:
                key = f"{site[0]} {site[2]}" if site != PROGRAM else ""
                contents.code[key] = used.definitions
                contents.partial += [key] if used.edited else []
                edited |= used.edited
                masked |= dict.fromkeys(sorted(used.masked))
            elif site == PROGRAM:
                contents.unknown.append("the source of the program itself is not known")
            elif os.path.isabs(site[1]) and _edited_after(site[1], origin.time):
                edited.add(site[1])
        if edited:
            names = ", ".join(sorted(os.path.basename(path) for path in edited)[:5])
            contents.unknown.append(f"edited after the program began, so the source that ran is unknown: {names}")
        if masked:
            names = ", ".join([*masked][:5])
            contents.unknown.append(f"secrets are masked, so it is not known whether they changed: {names}")
        return contents

    def close(self) -> None:
        """End the processes of git that are under way."""
        for journal in self._journals.values():
            journal.git.close()
        self._journals.clear()

    def _modules_of(self, origin: Origin, project: Project) -> Modules:
        modules = self._modules.pop(project.paths, None) or Modules(project.paths)
        modules.add_folder(origin.cwd)
        self._modules[project.paths] = modules
        while len(self._modules) > _MOST_PROJECTS:
            self._modules.popitem(last=False)
        return modules

    @contextlib.contextmanager
    def _names(self, project: Project) -> Iterator[None]:
        """Mask what the program masks. In a thread of a program, its own choice counts."""
        with choosing(project.secret_names, project.public_names) if self._own else contextlib.nullcontext():
            yield


def _file_of(origin: Origin) -> str:
    """The program's file; empty if it is none of Python's."""
    return os.path.join(origin.cwd, origin.source) if origin.source.endswith(".py") else ""


def _used_by(site: Site, modules: Modules, began: int, main: str) -> Used | None:
    name, file, digest = site
    used = used_by(name, file, digest, modules, began, main) if name else None
    if used is None and (not name or digest):  # `trackdsl run` records a program as a function.
        return used_by_program(name or os.path.basename(file), file, digest, modules, began)
    return used


def _packages(origin: Origin, project: Project) -> dict[str, str] | None:
    """The installed packages; None if that changed after the program began."""
    for path in project.paths:
        if os.path.basename(path) in _INSTALLED:
            with contextlib.suppress(OSError, ValueError):
                if os.stat(path).st_mtime_ns > origin.time:
                    return None
    return installed(project.paths)


def _edited_after(file: str, began: int) -> bool:
    try:
        return os.stat(file).st_mtime_ns > began
    except (OSError, ValueError):
        return False


class _Git:
    """The changes in the working tree of a program that are not committed.

    Args:
        origin: the program.
    """

    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self._patch: str | None = None
        self._output: IO[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        source = os.path.join(origin.cwd, origin.source)
        self._folder = os.path.dirname(source) if os.path.isfile(source) else origin.cwd
        environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_PAGER": "cat"}
        with contextlib.suppress(OSError, ValueError):
            # A file, because a pipe that nobody reads would stop git.
            self._output = tempfile.TemporaryFile(prefix="trackdsl-")  # noqa: SIM115 - closed below
            self._process = subprocess.Popen(
                _GIT,
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=subprocess.DEVNULL,
                cwd=self._folder,
                env=environment,
            )

    def patch(self) -> str | None:
        """The patch, with secrets masked; empty if there is no repository; None if it is not known."""
        if self._process is not None and self._output is not None:
            with contextlib.suppress(subprocess.TimeoutExpired, OSError):
                code = self._process.wait(_PATIENCE)
                self._output.seek(0)
                content = self._output.read(_LONGEST_PATCH + 1).decode("utf-8", "replace")
                self._patch = "" if code else self._checked(content)
            self.close()
        return self._patch

    def close(self) -> None:
        """End the process of git."""
        if self._process is not None:
            with contextlib.suppress(OSError):
                self._process.kill()
            self._process.wait()
            self._process = None
        if self._output is not None:
            self._output.close()
            self._output = None

    def _checked(self, content: str) -> str | None:
        """The patch, unless one of its files was changed after the program began."""
        top = self._top()
        for name in dict.fromkeys(_CHANGED.findall(content)):
            with contextlib.suppress(OSError, ValueError):
                if top is not None and os.stat(os.path.join(top, name)).st_mtime_ns > self._origin.time:
                    return None
        cut = content[:_LONGEST_PATCH]
        return mask_text(cut) + (
            "" if cut == content else f"\n… longer than {_LONGEST_PATCH} bytes; the rest is left out\n"
        )

    def _top(self) -> str | None:
        """The top folder of the working tree, to which the names in a patch are relative."""
        folder = Path(self._folder)
        return next((str(each) for each in (folder, *folder.parents) if (each / ".git").exists()), None)
