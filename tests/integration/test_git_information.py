"""A journal's `git` file: what git says of the program's source, without secrets in a remote's URL."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import examples, wait_until
from trackdsl.delivery.batches import _compose
from trackdsl.journal import _origin
from trackdsl.store_format.call_tag import call_of

PLANT = "Pl4ntedSecretx7Qz"
REMOTE = "remote.origin.url"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with one commit, on branch `trunk`, and a program that is not in it yet."""
    folder = tmp_path_factory.mktemp("repository")
    git = ["git", "-C", str(folder), "-c", "user.name=x", "-c", "user.email=x@example.com"]
    subprocess.run([*git, "init", "-q", "-b", "trunk"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    (folder / "program.py").touch()
    return folder


@pytest.fixture
def answer(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A journal's folder; the program is in the repository."""
    monkeypatch.setattr(_origin, "main_file", lambda: str(repository / "program.py"))
    (tmp_path / "journal").mkdir()
    return tmp_path / "journal"


def ask(journal: Path, monkeypatch: pytest.MonkeyPatch, **configuration: str) -> dict[str, str]:
    """The tags that come of git's answer, in a repository that is configured so; keys have `__` for their dots."""
    monkeypatch.setenv("GIT_CONFIG_COUNT", str(len(configuration)))
    for number, (key, value) in enumerate(configuration.items()):
        monkeypatch.setenv(f"GIT_CONFIG_KEY_{number}", key.replace("__", "."))
        monkeypatch.setenv(f"GIT_CONFIG_VALUE_{number}", value)
    _origin.ask_git(journal)
    wait_until((journal / "git").exists, "git's answer, which is renamed when it is whole")
    return _compose.git_tags(journal) or {}


def test_a_notebook_is_the_source(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a kernel, the source is the notebook, and git answers for its folder; for the working directory if unknown."""
    monkeypatch.setattr(_origin.sys, "argv", ["/somewhere/site-packages/ipykernel_launcher.py", "-f", "x.json"])
    monkeypatch.setenv("JPY_SESSION_NAME", str(repository / "churn.ipynb"))
    (repository / "churn.ipynb").touch()
    assert _origin.origin("sqlite://", str(tmp_path)).source == str(repository / "churn.ipynb")
    assert len(ask(tmp_path, monkeypatch)["mlflow.source.git.commit"]) == 40
    (tmp_path / "git").unlink()
    monkeypatch.delenv("JPY_SESSION_NAME")
    monkeypatch.chdir(repository)
    assert len(ask(tmp_path, monkeypatch)["mlflow.source.git.commit"]) == 40


@pytest.mark.parametrize(
    "url",
    [
        "https://github.com/o/r.git", "git@github.com:o/r.git", "ssh://git@host:22/o/r.git", "/srv/git/r.git",
        "../r.git", "r.git", "/srv/my repositories/C#/r.git", "file:///srv/r.git", "git://host/r.git",
        "host:r.git", "ssh://host/~me/r.git", "org-12@github.com:o/r.git", "https://dev.azure.com/o/p/_git/r",
        "https://[::1]:8080/r.git", "https://host:8443/@scope/r.git", "git@host:~me/r.git", "C:\\git\\r",
        "https://host/müller/r.git", "HTTPS://host/r",
    ],
)  # fmt: skip
def test_the_url_of_a_remote_stays_usable(url: str, answer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What holds no secret is MLflow's tag as it stands in the repository's configuration."""
    tags = ask(answer, monkeypatch, remote__origin__url=url)
    assert tags["mlflow.source.git.repoURL"] == url
    assert tags["mlflow.source.git.branch"] == "trunk"
    assert call_of(tags)["git_dirty"] is False


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        (f"https://host/r.git?token={PLANT}", "https://host/r.git"),
        (f"https://host/r.git?a=1&token={PLANT}@x", None),
        (f"https://host/r.git;token={PLANT}", "https://host/r.git"),
        (f"https://host/r.git#{PLANT}", "https://host/r.git"),
        (f"https://host/r.git%3Ftoken%3D{PLANT}", "https://host/r.git"),
        (f"https://host/token={PLANT}/r.git", "https://host/token"),
        (f"https://host/glpat-{PLANT}/r.git", "https://host/***/r.git"),
        (f"https://u:p@{PLANT}@host/r.git", "https://host/r.git"),
        (f"https://{PLANT}@host/r.git", "https://host/r.git"),
        (f"https://u:{PLANT}@@host/r.git", "https://host/r.git"),
        (f"https://u:{PLANT}/x@host/r.git", None), (f"https://u:1#{PLANT}@host/r.git", None),
        (f"https://u:1/{PLANT}@host/r.git", None), (f"https://u%3A{PLANT}%40host/r.git", None),
        (f"https:/u:{PLANT}@host/r.git", None), (f"HTTPS://u:{PLANT}@host/r.git", "HTTPS://host/r.git"),
        (f"ssh://u:{PLANT}@host:22/r.git", "ssh://host:22/r.git"),
        (f"ssh://git:{PLANT}@host/r.git", "ssh://host/r.git"),
        (f"{PLANT}:x-oauth-basic@host:o/r.git", "host:o/r.git"), (f"{PLANT}@host:o/r.git", "host:o/r.git"),
        (f"u:{PLANT}/x@host:r.git", None), (f"git@host:r.git?token={PLANT}", "git@host:r.git"),
        (f"git@{PLANT}@host:r.git", "host:r.git"), (f"/srv/token={PLANT}/r.git", "/srv/token=***"),
        (f"ext::sh -c 'connect --token={PLANT}'", None), (f"https://host/r.git\n{PLANT}", "https://host/r.git"),
        (f"persistent-https://u:{PLANT}@host/r.git", "persistent-https://host/r.git"),
    ],
)  # fmt: skip
def test_no_secret_of_a_remote_is_written(
    url: str, kept: str | None, answer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scheme, host and path of a URL with credentials are written, or nothing if they are not clear."""
    tags = ask(answer, monkeypatch, remote__origin__url=url)
    assert PLANT.encode() not in b"".join(path.read_bytes() for path in answer.iterdir())
    assert tags.get("mlflow.source.git.repoURL") == kept
    assert call_of(tags)["git_dirty"] is False


_USERS = st.sampled_from(["u:{}@", "{}@", "{}:x-oauth-basic@", "git:{}@", "u:p@{}@", "git@{}@", "u:@{}:@", "%40{}:x@"])
_SECRETS = st.from_regex(
    r"[A-Za-z0-9!@#$%^*()_+=?.,:;~-]{0,9}Pl4nted[A-Za-z0-9!@#$%^*()_+=?.,:;~-]{0,9}", fullmatch=True
)


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The part of the script that makes URLs safe, run over the lines of a file."""
    path = tmp_path_factory.mktemp("script") / "safe.sh"
    functions = _origin._GIT[: _origin._GIT.index('cd "$1"')]
    path.write_text(functions + 'while IFS= read -r line; do printf "%s\\n" "$line" | safe_url; done')
    return path


@pytest.mark.slow
@settings(max_examples=examples(10), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(secrets=st.lists(st.tuples(_USERS, _SECRETS), min_size=20, max_size=20))
def test_no_user_or_password_is_kept(script: Path, secrets: list[tuple[str, str]]) -> None:
    """No user or password is kept, whatever its characters are and wherever it is in front of the host."""
    lines = [
        url
        for user, secret in secrets
        for url in (f"https://{user.format(secret)}host/r.git", f"{user.format(secret)}host:r.git")
    ]
    done = subprocess.run(
        ["sh", str(script)], input="\n".join([*lines, ""]), capture_output=True, text=True, check=True, env=os.environ
    )
    assert "Pl4nted" not in done.stdout
