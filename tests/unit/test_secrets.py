"""Secrets: no byte that trackdsl writes contains a planted secret."""

from __future__ import annotations

import dataclasses
import json
import pickle
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import trackdsl
from trackdsl import Run, Secret, SettingsError, errors, stage, track_returns
from trackdsl._core import redaction as _secrets
from trackdsl._recording import artifacts as _artifacts
from trackdsl._runs import exceptions
from trackdsl.testing import RecordedRun, capture_runs

SECRETS = st.from_regex(r"[A-Za-z0-9!$]{8,30}", fullmatch=True)


def recorded(value: Any, name: str = "x") -> RecordedRun:
    with capture_runs() as captured, stage("f") as run:
        run.log_param(name, value)
    return captured.one("f")


def kept(act: Callable[[Run], None]) -> tuple[RecordedRun, dict[str, bytes]]:
    """The run on which an action is performed, and the files that it keeps, by name."""
    with capture_runs() as captured:
        with stage("f") as run:
            act(run)
        found = captured.one("f")
        tables = [path for paths in found.tables.values() for path in paths]
        return found, {path.name: path.read_bytes() for path in [*found.artifacts.values(), *tables]}


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("password", True), ("db_password", True), ("PGPASSWORD", True), ("api_key", True), ("apikey", True),
        ("aws_secret_access_key", True), ("token", True), ("hf_token", True), ("auth_token", True), ("bearer", True),
        ("client_secret", True), ("private_key", True), ("connection_string", True), ("credentials", True),
        ("passphrase", True), ("ssh_passphrase", True), ("pass_phrase", True), ("passwort", True), ("keypass", True),
        ("mot_de_passe", True), ("palavra_passe", True), ("user_pass", True), ("root_pw", True), ("secrets", True),
        ("max_tokens", False), ("token_count", False), ("n_tokens", False), ("tokenizer", False), ("keyword", False),
        ("monkey", False), ("passes", False), ("lr", False), ("key", False), ("author", False),
        ("AccessToken", True), ("accessToken", True), ("refreshToken", True), ("idToken", True), ("hfToken", True),
        ("sessionToken", True), ("githubToken", True), ("HFToken", True), ("dbPassword", True), ("openaiKey", True),
        ("api-key", True), ("X-Api-Key", True), ("access-key", True), ("private-key", True), ("encryption-key", True),
        ("connection-string", True), ("api_tokens", True), ("access_tokens", True), ("passwords", True),
        ("db_pass", True), ("DB_PASS", True), ("smtp_pass", True), ("pw", True), ("passcode", True), ("creds", True),
        ("jwt", True), ("auth", True), ("dsn", True), ("conn_str", True), ("ssh_key", True), ("rsa_key", True),
        ("signing_key", True), ("account_key", True), ("OPENAI_KEY", True), ("token_1", True), ("my_token_v2", True),
        ("Set-Cookie", True), ("basic_auth", True), ("x" * 1000 + "_password", True),
        ("tokens", False), ("pad_token", False), ("eos_token", False), ("bos_token", False), ("unk_token", False),
        ("mask_token", False), ("cls_token", False), ("sep_token", False), ("pad_token_id", False),
        ("eos_token_id", False), ("image_token_index", False), ("max_token_length", False), ("add_bos_token", False),
        ("cost_per_token", False), ("time_to_first_token", False), ("stop_token", False), ("next_token", False),
        ("tokens_per_second", False), ("prompt_tokens", False), ("maxTokens", False), ("secretary", False),
        ("cookie_count", False), ("n_cookies", False), ("compassion", False), ("primary_key", False),
        ("sort_key", False), ("foreign_key", False), ("forward_pass", False), ("connection_strategy", False),
    ],
)  # fmt: skip
def test_names_of_secrets(name: str, secret: bool) -> None:
    """Values with the name of a secret are masked, and hyper-parameters with similar names are not."""
    assert recorded("some value", name).params == {name: "***" if secret else "some value"}


def test_names_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """`configure(secret_names=, public_names=)` and the environment choose names, also for decorated functions."""

    @stage
    def f(pin_code: str, token_level: str, hf_token: str) -> None: ...

    def params(pin: str = "1234") -> dict[str, Any]:
        with capture_runs() as captured:
            f(pin, "word", "public")
        return captured.one("f").params

    assert params() == {"pin_code": "1234", "token_level": "word", "hf_token": "***"}
    trackdsl.configure(secret_names=["PIN_*"], public_names="hf_token")
    assert params() == {"pin_code": "***", "token_level": "word", "hf_token": "public"}
    trackdsl.configure(secret_names=[], public_names=[])
    monkeypatch.setenv("TRACKDSL_SECRET_NAMES", "pin_code, other")
    assert params()["pin_code"] == "1234"  # The settings of `configure` still apply.
    with pytest.raises(SettingsError, match="takes names"):
        trackdsl.configure(secret_names=[1])  # type: ignore[list-item]


def test_a_masked_value_is_masked_wherever_it_comes_again() -> None:
    """A masked argument is masked again in parameters, tags, texts and messages that come later."""

    @stage
    def f(password: str) -> None:
        trackdsl.log_param("command", f"login --with {password}")
        trackdsl.set_tag("note", password)
        raise RuntimeError(password)

    with capture_runs() as captured, pytest.raises(RuntimeError, match="correct horse"):
        f("correct horse")
    run = captured.one("f")
    assert (run.params["command"], run.tags["note"]) == ("login --with ***", "***")
    assert run.failure is not None
    assert "correct horse" not in str(run.failure)


def test_a_short_password_does_not_spoil_other_values() -> None:
    """A password that is a common word is masked under its name, and equal words elsewhere stay."""
    with capture_runs() as captured, stage("f", password="adam", optimizer="adam"):
        pass
    assert captured.one("f").params == {"password": "***", "optimizer": "adam"}


def test_the_users_secret_is_given_back_whole() -> None:
    """Masking changes neither what the function gets nor what it returns."""

    @stage
    @track_returns
    def f(password: str, hidden: Annotated[str, Secret]) -> dict[str, str]:
        return {"password": password, "hidden": hidden}

    with capture_runs():
        assert f("hunter22", "hunter33") == {"password": "hunter22", "hidden": "hunter33"}


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("https://u:p/ss@h/db", "https://***@h/db"), ("https://u:p#s?s@h", "https://***@h"),
        (str(Path("https://u:hunter2@h/x")), "https:/***@h/x"),
        ("https://host:8080/path/@user", "https://host:8080/path/@user"),
        ("https://medium.com/@user", "https://medium.com/@user"), ("C:/work/me@home", "C:/work/me@home"),
        ("https://h/x?api_key=hunter2&page=2", "https://h/x?api_key=***&page=2"),
        ("https://h/x?v=1&X-Amz-Signature=abc&sig=abc", "https://h/x?v=1&X-Amz-Signature=***&sig=***"),
        ("Server=h;Password=hunter2;Port=1", "Server=h;Password=***;Port=1"),
        ("Password=hunter2; Server=h", "Password=***; Server=h"), ("AccountKey=abc+/def==;x=1", "AccountKey=***;x=1"),
        ("x = 1; token=tokens[i]; f(a)", "x = 1; token=tokens[i]; f(a)"),
        ("train --password hunter2 --lr 1", "train --password *** --lr 1"),
        ("train --max-tokens 100 --lr 1", "train --max-tokens 100 --lr 1"),
        ("Authorization: Bearer abcdefgh1", "Authorization: Bearer ***"),
        ("Bearer authentication is used", "Bearer authentication is used"),
        ("sk_test_" + "a1" * 12, "***"), ("SG." + "a" * 22 + "." + "b" * 43, "***"),
        ("sk-proj-" + "aB-1_" * 8, "***"), ("sk-" + "a1" * 24, "***"),
        ("sk-learn-pipeline-gradient-boosting", "sk-learn-pipeline-gradient-boosting"),
        ("task-" + "a" * 24, "task-" + "a" * 24), ("my_task_test_" + "a" * 24, "my_task_test_" + "a" * 24),
        ("https://hooks.slack.com/services/T01/B02/" + "aB1" * 8, "https://hooks.slack.com/***"),
        ("https://discord.com/api/webhooks/123456/a-B_c1d2e3f4 x", "https://discord.com/api/webhooks/*** x"),
        ("https://api.telegram.org/bot123456:AA" + "x" * 33 + "/get", "https://api.telegram.org/bot***/get"),
        ("https://host/hooks/build", "https://host/hooks/build"), ("https://host/bots/1:2", "https://host/bots/1:2"),
        ("x_ghp_" + "a1" * 18 + "_x", "x_***_x"), ("xAKIAIOSFODNN7EXAMPLE_", "x***_"),
        ("-----BEGIN PGP PRIVATE KEY BLOCK-----\nabc\n-----END PGP PRIVATE KEY BLOCK-----", "***"),
    ],
)  # fmt: skip
def test_shapes_of_secrets(text: str, masked: str) -> None:
    """What has the shape of a secret is masked in any text, and what only resembles it stays."""
    assert _secrets.mask_text(text) == masked


@pytest.mark.parametrize(
    "token",
    [
        "AKIA" + "A1B2" * 4, "ASIA" + "A1B2" * 4, "ghp_" + "a1" * 18, "gho_" + "a1" * 18, "ghu_" + "a1" * 18,
        "ghs_" + "a1" * 18, "ghr_" + "a1" * 18, "github_pat_" + "a1_" * 10, "glpat-" + "aB-1" * 6, "xoxb-" + "1a-" * 5,
        "xoxp-" + "1a-" * 5, "xoxa-" + "1a-" * 5, "xoxr-" + "1a-" * 5, "xoxs-" + "1a-" * 5, "xoxe.xoxp-" + "1a-" * 5,
        "sk-ant-" + "aB-1" * 6, "sk-svcacct-" + "aB-1" * 6, "sk-admin-" + "aB-1" * 6, "sk-or-v1-" + "a1" * 16,
        "sk_live_" + "a1" * 12, "sk_test_" + "a1" * 12, "rk_live_" + "a1" * 12, "rk_test_" + "a1" * 12,
        "AIza" + "aB-_1" * 7, "ya29." + "aB-_1" * 7, "hf_" + "aB1" * 11, "pypi-" + "aB-_1" * 12, "npm_" + "aB1" * 12,
        "dapi" + "0a" * 16, "SG." + "a" * 22 + "." + "b" * 43, "dckr_pat_" + "aB-_1" * 6,
        "AGE-SECRET-KEY-1" + "Q2" * 29, "eyJ" + "hbGci" * 4 + ".eyJ" + "zdWIi" * 4 + ".aB-_1",
        "-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----",
        "-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----",
        "-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n-----END OPENSSH PRIVATE KEY-----",
    ],
    ids=lambda token: token[:12],
)  # fmt: skip
def test_a_token_of_every_issuer(token: str) -> None:
    """The tokens of each issuer are masked where nothing else in the text looks like a secret."""
    assert _secrets.mask_text(f"see {token} there") == "see *** there"


@pytest.mark.parametrize(
    ("lead", "secret"),
    [("Bearer ", "aB1-cdefgh"), ("Authorization: Basic ", "dXNlcjpwdw=="), ("IDENTIFIED BY ", "'hunter 2'")],
)
def test_what_follows_a_scheme(lead: str, secret: str) -> None:
    """A credential after a scheme of HTTP or SQL is masked, and the scheme stays."""
    assert _secrets.mask_text(f"x {lead}{secret} y") == f"x {lead}*** y"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("{'password': 'hunter2', 'api-key': \"it's\"}", "{'password': ***, 'api-key': ***}"),
        ("Login(user='me', password='hunter2')", "Login(user='me', password=***)"),
        ("db_password: b'ab'", "db_password: ***"),
        ("a: 1\npassword: hunter\nb: 2", "a: 1\npassword: ***\nb: 2"), ("DB_PASSWORD=hunter", "DB_PASSWORD=***"),
        ("note='login password=hunter2 now'", "note='login password=*** now'"),
        ("token = tokens[i]", "token = tokens[i]"),
        ("def f(password: str, token=None):", "def f(password: str, token=None):"),
        ("f(password=password, secret=get())", "f(password=password, secret=get())"),
        ("    password: str\n    token: str", "    password: str\n    token: str"),
        ('{"token": "Paris", "label": "LOC"}', '{"token": "Paris", "label": "LOC"}'),
        ("secret = os.environ['X']", "secret = os.environ['X']"), ("password: ${PASSWORD}", "password: ${PASSWORD}"),
    ],
)  # fmt: skip
def test_literals_in_written_text(text: str, masked: str) -> None:
    """Literal secrets in a text that a user writes are masked everywhere; code that only names them stays."""

    def act(run: Run) -> None:
        run.set_tag("x", text)
        run.log_text(text, "x.txt")
        run.log_table({"x": [text]}, "x.json")

    found, files = kept(act)
    assert found.tags["x"] == masked
    assert files["x.txt"].decode() == masked
    assert json.loads(files["rows.json"])["data"] == [[masked]]


def test_messages_hide_more_than_literals() -> None:
    """In an error's message, whatever is assigned to a secret's name is masked, escaped quotes included."""
    message = (
        repr({"outer": repr({"password": "hunter2", "it's": "x"})}) + " password=hunter --password=abc api_key = key"
    )
    masked = _secrets.mask_prose(message)
    assert "hunter" not in masked
    assert masked.endswith("password=*** --password=*** api_key = ***")


def test_the_working_directory_is_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """`PWD`, the working directory, is not masked in messages."""
    monkeypatch.setenv("PWD", "/home/me/project")
    monkeypatch.setenv("SMTP_PASS", "/home/me/hunter2")
    assert _secrets.mask_prose("/home/me/project/x.py has /home/me/hunter2") == "/home/me/project/x.py has ***"


def test_numbers_of_tokens_and_booleans_are_data() -> None:
    """A number under the name of a token is a count, and a boolean hides nothing; numbers under `password` do."""
    pairs = {"token": 5, "has_password": True, "db_password": 1234, "api_key": None, "auth_token": "abc"}
    with capture_runs() as captured, stage("f") as run:
        run.set_tags(pairs)
        run.log_table([pairs], "x.json")
    found = captured.one("f").tags
    assert {name: found[name] for name in pairs} == {
        "token": "5", "has_password": "True", "db_password": "***", "api_key": "None", "auth_token": "***",
    }  # fmt: skip
    trackdsl.configure(secret_names=["token"])
    assert _secrets.is_secret("token", 5)


def test_booleans_and_numbers_are_not_remembered() -> None:
    """A password that is `True` or a number is masked under its name, and not taken out of other texts."""
    for value in (True, 1024, 31415926, "20241231", 0.25):
        _secrets.remember(value)
    text = "True, 1024 steps, seed 31415926, since 20241231, 0.25"
    assert _secrets.mask_prose(text) == text


@dataclasses.dataclass
class Login:
    user: str
    password: str


@dataclasses.dataclass
class Marked:
    user: str
    hint: Annotated[str, Secret]


@pytest.mark.parametrize(
    ("value", "structure"),
    [
        ([Login("me", "hunter2")], [{"user": "me", "password": "***"}]),
        (Marked("me", "hunter2"), {"user": "me", "hint": "***"}),
        (deque(["b", "https://u:hunter2@h"]), ["b", "https://***@h"]),
        ({"https://u:hunter2@h", "b"}, ["b", "https://***@h"]),
        ({1: b"https://u:hunter2@h"}, {"1": "bytes of 19, digest bb6a777c"}),
    ],
    ids=["dataclass", "annotated", "deque", "set", "bytes"],
)
def test_a_structure_with_a_secret_is_not_pickled(value: Any, structure: Any) -> None:
    """What is not secret in it is kept as JSON, and a tag says why."""
    found, files = kept(lambda run: _artifacts.keep_object(run, "x.pkl", value))
    assert {name: json.loads(content) for name, content in files.items()} == {"x.json": structure}
    assert found.tags["trackdsl.omitted.x.pkl"].endswith("holds a secret; its other parts are in x.json")


def test_the_text_of_a_structure_with_a_secret_is_not_kept() -> None:
    """The text of a structure may show what its annotation masks: the structure is kept as JSON instead."""
    found, files = kept(lambda run: _artifacts.keep_object(run, "x.txt", Marked("me", "abc")))
    assert {name: json.loads(content) for name, content in files.items()} == {"x.json": {"user": "me", "hint": "***"}}
    assert found.tags["trackdsl.omitted.x.txt"].endswith("holds a secret; its other parts are in x.json")


class Client:
    """An object that keeps a secret as clients of services do."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


@pytest.mark.parametrize(
    "value",
    [
        Client(user="me", api_key="kq7Zx91mPw"), Client(_token=b"kq7Zx91mPw"), [Client(password="kq7Zx91mPw")],
        Client(session=Client(options={"headers": {"X-Api-Key": "kq7Zx91mPw"}})), {"a": Client(dsn="kq7Zx91mPw")},
    ],
)  # fmt: skip
def test_an_object_with_a_secret_is_not_pickled(value: Any) -> None:
    """An object with a secret in an attribute, at any depth, is not pickled; a tag says what is left out."""

    @track_returns
    def f() -> Any:
        return value

    def act(run: Run) -> None:
        assert f() is value

    found, files = kept(act)
    assert not any(b"kq7Zx91mPw" in content for content in files.values())
    assert "holds a secret" in "".join(why for name, why in found.tags.items() if "omitted" in name)


def test_an_object_whose_attributes_only_look_secret_is_pickled() -> None:
    """Models have texts, flags and numbers under such names, and secret-looking texts under other names."""
    vocabulary, lines = {"password": 3, "token": 5}, ["password: hunter22xx", "token=abc123def456"]
    value = Client(
        pad_token="<pad>", token="<unk>", password=None, secret=3, text="kq7Zx91mPw", vocabulary=vocabulary, lines=lines
    )
    _, files = kept(lambda run: _artifacts.keep_object(run, "x.pkl", value))
    assert vars(pickle.loads(files["x.pkl"])) == vars(value)


def test_a_command_line_as_arguments() -> None:
    """In `run("--token", ...)` the argument before names the secret."""

    @stage
    def f(*arguments: str) -> None: ...

    with capture_runs() as captured:
        f("login", "--password", "kq7Zx91mPw", "--lr", "1")
    assert list(captured.one("f").params.values()) == ["login", "--password", "***", "--lr", "1"]


def test_a_structure_without_a_secret_is_pickled() -> None:
    """A structure without a secret is pickled, whatever its names and values."""
    value = [{"user": "me", "tokens": ["a"], "password": None}, {1, 2}, "https://host/@me"]
    _, files = kept(lambda run: _artifacts.keep_object(run, "x.pkl", value))
    assert pickle.loads(files["x.pkl"]) == value


def test_bytes_that_are_no_text_stay_as_they_are() -> None:
    """A credential is masked in bytes that are text; other bytes are not touched."""
    binary = b"\xff\xfe https://u:hunter2@h"

    def act(run: Run) -> None:
        _artifacts.keep_object(run, "text.bin", b"see https://u:hunter2@h")
        _artifacts.keep_object(run, "binary.bin", binary)

    assert kept(act)[1] == {"text.bin": b"see https://***@h", "binary.bin": binary}


def test_names_of_metrics_are_masked() -> None:
    """Names of metrics are masked on every path, also repeatedly; a value masked elsewhere masks no name."""
    with capture_runs() as captured, stage("f") as run:
        for step in range(3):
            run.log_metric("https://u:hunter2@h", 0.5, step)
            run.log_metrics({"https://u:hunter3@h/x": 1, "correct horse": 2.0}, step)
        run.log_param("password", "correct horse")
        run.log_metric("correct horse", 3.0)
    assert sorted(captured.one("f").metrics) == ["correct horse", "https://***@h", "https://***@h/x"]


def test_log_lines_and_strict_errors_are_masked(caplog: pytest.LogCaptureFixture) -> None:
    """Lines that anybody writes on trackdsl's logger are masked, and so is what a fault raises in strict mode."""
    errors.logger.warning("cannot reach %s", "https://u:hunter2@h")
    errors.report("x", "login(password='hunter2')")
    assert [record.getMessage() for record in caplog.records] == [
        "cannot reach https://***@h",
        "login(password=***)",
    ]
    errors.set_strict(True)
    with pytest.raises(errors.TrackingFault, match=r"login\(password=\*\*\*\)"):
        errors.report("x", "login(password='hunter2')")


def test_a_log_line_that_cannot_be_read_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """A log line with an error whose text cannot be read is written without that text."""

    class Unreadable(Exception):
        def __str__(self) -> str:
            raise ValueError("https://u:hunter2@h")

    errors.logger.warning("leaving failed: %s", Unreadable())
    assert [record.getMessage() for record in caplog.records] == ["leaving failed: %s"]


def test_a_long_traceback_is_cut_after_masking() -> None:
    """A credential at the point where a traceback is cut leaves no half behind."""
    for length in range(199_960, 200_001, 4):
        try:
            raise ValueError("https://user:hunter2hunter2@host/" + "x" * length)
        except ValueError as error:
            found = exceptions.describe(error)
        assert found is not None
        assert "hunter2@" not in found.traceback


@pytest.mark.slow
def test_thousands_of_secrets_are_remembered(caplog: pytest.LogCaptureFixture) -> None:
    """Thousands of secrets are masked in later texts, a log line says where that ends; long texts are searched too."""
    secrets = [f"{number:05d}-secret" for number in range(_secrets._memory._MAX_REMEMBERED + 5)]
    for number, secret in enumerate(secrets):
        _secrets.remember(secret)
        if number in (0, 5, 50, 5000):
            assert _secrets.mask_text(f"({secret})") == "(***)"
    assert [record.message for record in caplog.records] == [
        "trackdsl has masked 10000 different secrets; further ones are masked only where they have a secret's name, "
        "and no longer where other texts contain them."
    ]
    assert _secrets.mask_text(f"{secrets[7]} {secrets[9999]} {secrets[10_001]}") == f"*** *** {secrets[10_001]}"
    assert secrets[4321] not in _secrets.mask_prose("x " * 2_000_000 + secrets[4321])


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters=":=,"), max_size=15))
def test_text_without_a_secret_stays_as_it_is(text: str) -> None:
    """Masking leaves text as it is that assigns no value to a name and is too short for a token."""
    assert _secrets.mask_text(text) == text


@given(
    before=st.text(max_size=20),
    after=st.text(max_size=20),
    secret=st.from_regex(r"[A-Z][a-z][0-9][A-Za-z0-9!$]{13,30}", fullmatch=True),
)
@example("", "", "Aa0aAaAa00")
@example("", "", "Qw1aAdminTest")
def test_what_is_remembered_never_gets_through(before: str, after: str, secret: str) -> None:
    """A remembered secret that is long and mixed is masked, whatever is around it."""
    _secrets.remember(secret)
    assert secret not in _secrets.mask_text(f"{before}{secret}{after}")
    _secrets.forget()


def test_flags_and_counts_under_secret_names_are_data() -> None:
    """`use_auth_token=True` and `token=3` are not secrets, as arguments, in structures and files; a password is."""

    @stage
    def f(use_auth_token: bool, token: int, config: dict[str, Any], password: int, pin: Annotated[int, Secret]) -> None:
        trackdsl.log_dict(config, "config.json")

    with capture_runs() as captured:
        f(True, 3, {"auth_token": False, "token": "long secret"}, 12345678, 1)
        run = captured.one("f")
        kept = run.artifacts["config.json"].read_text()
    assert run.params == {
        "use_auth_token": True, "token": 3, "config.auth_token": False, "config.token": "***", "password": "***",
        "pin": "***",
    }  # fmt: skip
    assert "false" in kept
    assert "long secret" not in kept
