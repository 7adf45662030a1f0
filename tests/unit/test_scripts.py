"""Which script a program is, as its root runs keep it."""

from __future__ import annotations

from pathlib import Path

from trackdsl.delivery.summaries._scripts import same_script, script_of
from trackdsl.journal._origin import Origin


def origin(cwd: Path, source: str) -> Origin:
    """A program that was started in a folder."""
    return Origin("", str(cwd), "host", 1, "user", "3.12", "1", source, 1)


def made(path: Path) -> Path:
    """An empty file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_a_script_is_its_path(tmp_path: Path) -> None:
    """Below the top of a working tree, or in an installed package, or absolute; links to folders make no difference."""
    plain = made(tmp_path / "plain" / "train.py")
    (tmp_path / "link").symlink_to(plain.parent)
    made(tmp_path / "repo" / ".git" / "HEAD")
    made(tmp_path / "repo" / "jobs" / "train.py")
    tool = made(tmp_path / "repo" / ".venv" / "lib" / "python3.12" / "site-packages" / "tool" / "__main__.py")
    assert script_of(origin(plain.parent, "./train.py")) == str(plain)
    assert script_of(origin(tmp_path, "link/../link/train.py")) == str(plain)
    assert script_of(origin(tmp_path / "repo" / "jobs", "train.py")) == "jobs/train.py"
    assert script_of(origin(tmp_path / "repo", "jobs/")) == "jobs"
    assert script_of(origin(tmp_path, str(tool))) == "tool/__main__.py"


def test_programs_without_a_script(tmp_path: Path) -> None:
    """`python -c`, a prompt, a kernel whose notebook is not known, and a script that is gone have none."""
    kernel = str(made(tmp_path / "ipykernel_launcher.py"))
    for source in ("-c", "<interactive>", kernel, "gone.py", "\0"):
        assert script_of(origin(tmp_path, source)) == ""


def test_repositories_of_one_name_are_one() -> None:
    """The URL of a remote may have several forms; one of the two may not be known."""
    shop, fork, other, unknown = (
        {"trackdsl.script": "train.py", "mlflow.source.git.repoURL": url}
        for url in ("git@host:me/shop.git", "https://host/you/Shop/", "https://host/me/bank.git", "")
    )
    assert [same_script(shop, one) for one in (fork, other, unknown)] == [True, False, True]
