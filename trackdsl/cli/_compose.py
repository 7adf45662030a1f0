"""`trackdsl compose`: the files of a tracking server to run with Docker Compose."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import click

#: What is written → where it is in the package.
FILES = {"compose.yaml": "compose.yaml", ".env.example": "env.example"}


def write(output: Path | None, *, force: bool) -> None:
    """Print the compose file, or write it and what goes with it into a folder.

    Args:
        output: the folder; None to print.
        force: replace what is there.

    Raises:
        click.ClickException: something is in the way.
    """
    content = {
        name: files("trackdsl.cli.deployment").joinpath(place).read_text("utf-8") for name, place in FILES.items()
    }
    if output is None:
        click.echo(content["compose.yaml"], nl=False)
        return
    taken = [name for name in content if (output / name).exists()]
    if taken and not force:
        raise click.ClickException(
            f"{', '.join(str(output / name) for name in taken)} is there already; --force replaces it."
        )
    try:
        output.mkdir(parents=True, exist_ok=True)
        for name, text in content.items():
            (output / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"cannot write to {output}: {error}") from None
    click.echo(
        f"{output} has {' and '.join(content)}. Next:\n"
        f"  cd {output} && cp .env.example .env    # and fill it in\n"
        "  docker compose up --detach --wait"
    )
