"""The file that a command writes: as a whole, or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from trackdsl._core.escaping import printable

#: As the name of a file, the standard output.
DASH = Path("-")


def write(path: Path, text: str, *, as_json: bool = False) -> bool:
    """Write a text to a file as a whole, or print it if the file is `-`.

    Args:
        path: the file that the user named.
        text: its content.
        as_json: whether JSON is printed about it.

    Returns:
        whether it is a file, about which something is left to say.

    Raises:
        click.ClickException: the file cannot be written, or JSON would be printed after the content.
    """
    content = text.encode("utf-8", "replace")
    if path == DASH:
        if as_json:
            raise click.UsageError("--json needs the name of a file: `-` prints the content itself.")
        # As bytes, whatever the encoding of the terminal. A standard output that was replaced may take only text.
        click.echo(content if hasattr(sys.stdout, "buffer") else text, nl=False)
        return False
    with replacing(path) as file:
        file.write_bytes(content)
    return True


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A new file in the same folder, which replaces `path` at the end of the block.

    A program that reads the file meanwhile sees the earlier one. If the block fails, that one stays. A path that is not
    a regular file, such as `/dev/stdout`, is written directly.

    Args:
        path: the file that the user named.

    Raises:
        click.ClickException: the file cannot be written.
    """
    direct = path.exists() and not path.is_file()
    target = path if direct else Path(os.path.realpath(path))
    part = target if direct else target.with_name(f".trackdsl-{os.getpid()}.part")
    try:
        yield part
        if not direct:
            if target.exists():
                shutil.copymode(target, part)
            part.replace(target)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        if not path.parent.is_dir():
            reason = f"there is no folder {printable(str(path.parent))}. Create it, or name another one."
        raise click.ClickException(f"cannot write to {printable(str(path))}: {reason}") from None
    finally:
        if not direct:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
