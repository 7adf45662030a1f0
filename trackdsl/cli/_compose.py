"""`trackdsl compose`: writes the files to run a tracking server with Docker Compose."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import click

from trackdsl._core.version import __version__

#: The name of each file that is written, and its name in the package.
FILES = {"compose.yaml": "compose.yaml", ".env.example": "env.example"}


def write(output: Path | None, *, force: bool, as_json: bool) -> None:
    """Print the compose file, or write all files to a folder.

    Args:
        output: the folder; None to print.
        force: replace existing files.
        as_json: print JSON: the content of the files by their names, or the paths of those that were written.

    Raises:
        click.ClickException: a file exists already, or the folder cannot be written.
    """
    folder = files("trackdsl.cli.deployment")
    # The plugin in the server is that of the version which writes these files.
    content = {
        name: folder.joinpath(source).read_text("utf-8").replace("==VERSION", f"=={__version__}")
        for name, source in FILES.items()
    }
    if output is None:
        click.echo(json.dumps(content) + "\n" if as_json else content["compose.yaml"], nl=False)
        return
    taken = [name for name in content if (output / name).exists()]
    if taken and not force:
        raise click.ClickException(
            f"{', '.join(str(output / name) for name in taken)} exists already; --force replaces it."
        )
    try:
        output.mkdir(parents=True, exist_ok=True)
        for name, text in content.items():
            (output / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"cannot write to {output}: {error}") from None
    if as_json:
        click.echo(json.dumps({"files": [str(output / name) for name in content]}))
        return
    click.echo(
        f"{output} contains {' and '.join(content)}. Next:\n"
        f"  cd {output} && cp .env.example .env    # then edit .env\n"
        "  docker compose up --detach --wait"
    )
