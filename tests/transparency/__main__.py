"""`python tests/transparency`: runs the tests of other people's libraries with all of their functions decorated.

Each library is run by its own tests, which know nothing of trackdsl: as it is, and with every function and method of it
decorated. Both have to come to the same, test by test, and the journal has to hold each run, begun and ended.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path

import click
from libraries import LIBRARIES, Library

from trackdsl._core import events
from trackdsl.journal._reader import Reader
from trackdsl.journal._spool import JOURNALS

_HERE = Path(__file__).parent
#: In seconds. The slowest takes a minute.
_LIMIT = 600
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trackdsl-transparency"

#: By a test's name: passed, failed, error, skipped. One that has parts has as many outcomes.
Outcomes = dict[str, list[str]]


@click.command()
@click.argument("names", nargs=-1, type=click.Choice([library.name for library in LIBRARIES]))
def main(names: tuple[str, ...]) -> None:
    """Decorate every function of the libraries NAMES (all by default) and run their tests."""
    wrong = []
    for library in LIBRARIES:
        if names and library.name not in names:
            continue
        with tempfile.TemporaryDirectory(prefix="trackdsl-transparency-") as folder:
            source = _source(library, Path(folder))
            if source is not None:
                wrong += _compared(library, source, Path(folder))
    for line in wrong:
        click.secho(line, fg="red")
    sys.exit(bool(wrong))


def _source(library: Library, folder: Path) -> Path | None:
    """The unpacked source distribution. If the index does not have it, prints why and returns None."""
    _CACHE.mkdir(parents=True, exist_ok=True)
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{library.name}=={library.version} --hash=sha256:{library.sha256}\n")
    archive = _archive(library)
    if archive is None:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        done = subprocess.run([*pip, "--dest", _CACHE, "-r", wanted], capture_output=True, text=True, check=False)
        archive = _archive(library)
        if "DO NOT MATCH" in done.stderr:
            raise click.ClickException(done.stderr)
        if done.returncode or archive is None:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            click.echo(f"{library.name} is skipped: pip download {library.name}=={library.version}: {reason}")
            return None
    shutil.unpack_archive(archive, folder / "unpacked", filter="data")
    return next((folder / "unpacked").iterdir())


def _archive(library: Library) -> Path | None:
    names = {library.name, library.name.replace("-", "_")}
    paths = (_CACHE / f"{name}-{library.version}.tar.gz" for name in names)
    return next((path for path in paths if path.exists()), None)


def _compared(library: Library, source: Path, folder: Path) -> list[str]:
    """What is wrong, one line each."""
    spool = folder / "spool"
    report = folder / "decorated.json"
    decorated = {
        "DECORATED_PACKAGES": ",".join(library.packages),
        "DECORATED_UNRECORDED": ",".join(library.unrecorded),
        "DECORATED_REPORT": str(report),
        "TRACKDSL_MODE": "offline",
        "TRACKDSL_SPOOL": str(spool),
    }
    plain, plain_seconds = _run(library, source, folder / "plain.xml", {})
    with_ours, seconds = _run(library, source, folder / "decorated.xml", decorated)
    begun, ended = _count(spool)
    functions = json.loads(report.read_text())["functions"] if report.exists() else 0
    click.echo(
        f"{library.name} {library.version}: {sum(map(len, with_ours.values())):,} tests with {functions:,} functions "
        f"decorated, {begun:,} runs recorded; {plain_seconds:.1f} s undecorated, {seconds:.1f} s decorated"
    )
    wrong = [
        f"{library.name}: {test}: {outcomes} undecorated, {with_ours.get(test)} decorated"
        for test, outcomes in plain.items()
        if Counter(with_ours.get(test)) != Counter(outcomes) and test.split("::")[-1] not in library.differing
    ]
    for test, outcomes in with_ours.items():
        reason = library.differing.get(test.split("::")[-1])
        if reason is not None:
            click.echo(f"  {test}: {' '.join(outcomes)}: {reason}")
            if outcomes == plain.get(test):
                wrong.append(f"{library.name}: {test} is listed as differing and does not")
    if len(plain) < 100 or begun < 1000:
        wrong.append(f"{library.name}: {len(plain)} tests and {begun} runs are too few to show anything")
    if begun != ended:
        wrong.append(f"{library.name}: {begun:,} runs begun, {ended:,} ended")
    return wrong


def _run(library: Library, source: Path, result: Path, env: dict[str, str]) -> tuple[Outcomes, float]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TRACKDSL_", "MLFLOW_"))}
    paths = os.pathsep.join([str(source / library.source), str(source), str(_HERE)])
    # One order, one process, and none of the plugins that happen to be installed here.
    alone = ["-p", "no:randomly", "-p", "no:xdist", "-p", "no:cacheprovider", "-p", "no:hypothesispytest"]
    command = [sys.executable, "-m", "pytest", "-q", *alone, f"--junitxml={result}"]
    command += [f"--deselect={test}" for test in library.left_out]
    command += ["-p", "everything_decorated"] if env else []
    began = time.monotonic()
    done = subprocess.run(
        command,
        cwd=source,
        env={**kept, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1", **env},
        capture_output=True,
        text=True,
        timeout=_LIMIT,
        check=False,
    )
    if not result.exists():
        raise click.ClickException(f"the tests of {library.name} did not run:\n{done.stdout}\n{done.stderr}")
    return _outcomes(result), time.monotonic() - began


def _outcomes(result: Path) -> Outcomes:
    outcomes: Outcomes = {}
    for case in ET.parse(result).getroot().iter("testcase"):  # noqa: S314 - pytest has just written it
        test = f"{case.get('classname')}::{case.get('name')}"
        kinds = [part.tag for part in case if part.tag in ("failure", "error", "skipped")]
        outcomes.setdefault(test, []).append(kinds[0] if kinds else "passed")
    return outcomes


def _count(spool: Path) -> tuple[int, int]:
    """How many runs the journals have begun, and how many they have ended."""
    kinds: Counter[type] = Counter()
    for directory in (spool / JOURNALS).glob("*"):
        reader = Reader(directory)
        try:
            kinds.update(type(entry.event) for entry in reader.read(1 << 62, writer_alive=False))
        finally:
            reader.close()
    return kinds[events.Open], kinds[events.Close]


if __name__ == "__main__":
    main()
