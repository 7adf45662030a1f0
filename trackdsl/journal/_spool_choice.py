"""Which folder is the spool of this program: the one that the settings name, the default one, or a fallback."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from trackdsl._config import resolve as settings
from trackdsl.errors import report
from trackdsl.journal._ownership import is_own_folder
from trackdsl.journal._spool import is_spool, locate, prepare

_MOST_FALLBACKS = 9


def default_path() -> Path:
    """The default spool: in the user's state folder, one for each machine.

    Machines often share home folders. They do not share locks and mapped files, so the path contains the host's name.
    """
    import platformdirs

    return Path(platformdirs.user_state_dir("trackdsl", appauthor=False)) / "spool" / host()


def fallback_path() -> Path:
    """The spool to use when the usual one is not writable: a folder of this user in the temporary folder.

    Another user may have taken a name first, so there are several names. A folder that this user owns is preferred to a
    free name, so that every program finds the same one.
    """
    import tempfile

    temporary = Path(tempfile.gettempdir())
    names = [f"trackdsl-{os.geteuid()}", *(f"trackdsl-{os.geteuid()}-{n}" for n in range(2, _MOST_FALLBACKS + 1))]
    paths = [temporary / name for name in names]
    own = [path for path in paths if is_own_folder(path)]
    free = [path for path in paths if not os.path.lexists(path)]
    return next(iter([*own, *free, *paths])) / "spool" / host()


def named_path() -> Path:
    """The spool that the settings name, or the default one; it need not exist.

    Raises:
        OSError: it cannot be inspected, or belongs to another user.
        RuntimeError: the settings name none, and there is no home folder.
    """
    return locate(settings.spool() or default_path())


def others(spool: Path) -> list[Path]:
    """Other spools that this user's programs may have used: those of other hosts, and the default and fallback ones."""
    spools = []
    for find_path in (default_path, fallback_path):
        try:
            folders = sorted(find_path().parent.iterdir())
        except (OSError, RuntimeError):  # RuntimeError: there is no home folder.
            continue
        spools += [each for each in folders if each != spool and each not in spools and is_spool(each)]
    return spools


def find() -> Path:
    """The spool in use: the named or default one if it is writable, else one in the temporary folder.

    Raises:
        OSError: neither can be used, or no file descriptor is free.
    """
    wanted: Path | None = None
    try:
        wanted = settings.spool() or default_path()
        return prepare(wanted)
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home folder.
        if getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE):
            raise  # The path is fine: it can be used once a descriptor is free.
        fallback = prepare(fallback_path())
        report(
            "spool-fallback",
            f"trackdsl cannot use its spool {wanted} ({error}) and records to {fallback} instead. "
            "Set TRACKDSL_SPOOL to a writable folder.",
            key=str(wanted),
        )
        return fallback


def host() -> str:
    """The name of this host, as used in paths."""
    return "".join(c if c.isalnum() or c in "-." else "_" for c in os.uname().nodename) or "host"
