"""Values and names that only resemble secrets: a common word that is a password stays readable elsewhere."""

from __future__ import annotations

import base64
import decimal
import json
import urllib.parse
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import trackdsl
from tests.unit.test_secrets import kept, recorded
from trackdsl import experiment, stage
from trackdsl._core import redaction as _secrets
from trackdsl.testing import capture_runs

#: What people give for a password, a token or a key that is none, or that is one only there.
COMMON = [
    "postgres", "root", "admin", "disabled", "none", "true", "localhost", "test", "guest", "minio", "changeme",
    "rabbitmq",
    "resnet50", "gpt-4o", "bert-base", "llama-3-8b", "efficientnet_b0", "mnist", "gpt4oMini", "toLower",
    "2024-01-31", "2024-01-31T10:00:00Z",
    "12:30", "1234", "12345678", "0.001", "1e-5", "us-east-1", "v1.2.3", "10.0.0.1", "gridworld", "scheduler", "hunter",
    "<unk>", "[MASK]", "<|endoftext|>",
    "neo4j", "influxdb", "conv2d", "224x224", "8x7b", "RandomForestClassifier", "XGBClassifier",
    "categorical_crossentropy",
    "kafka", "Kubernetes", "random forest", "not set", "http", "utf-8", "sha256", "float16", "cuda:0", "молоко",
    "abc",
]  # fmt: skip
#: Likely secrets: as words of their own they are masked in every text.
LIKELY = [
    "hunter22", "S3cr3t!x", "kqzvjxwp", "correct horse", "correct-horse-battery-staple", "deadbeefcafe1234",
    "9f86d081884c",
    "Zq7hunterX9", "dGhpcyBpcyBhIHNlY3JldA==", "tr0ub4dor&3", "SuperSecret123", "my-secret-token", "supersecret",
    "a/b+c==9zz", "abcdefgh!1", "hjkl-9XyZ-22", "p@55w0rd",
]  # fmt: skip


@pytest.mark.parametrize("value", COMMON)
def test_a_common_value_is_masked_under_its_name_alone(value: str) -> None:
    """A common value is masked under its name, and stays in other names, values, texts, files and errors."""

    @stage
    def connect(password: str) -> None: ...

    with capture_runs() as captured:
        connect(value)
        with experiment(f"{value}-bench", run_name=f"run {value}") as run:
            run.log_params({"api_key": value, "db": value, f"p_{value}": 1, "nested": {value: [value]}})
            run.log_metric(f"acc_{value}", 0.5)
            run.log_metrics({value: 0.5})
            run.set_tags({f"t_{value}": value})
            run.log_text(f"uses {value} now", f"{value}/{value}.txt")
        with pytest.raises(ValueError, match="cannot"), stage("fails"):
            raise ValueError(f"cannot use {value} or pre{value}post")
        run = captured.one(f"run {value}")
        assert [path.read_text() for path in run.artifacts.values()] == [f"uses {value} now"]
    assert captured.one("connect").params == {"password": "***"}
    assert run.params["api_key"] == "***"
    assert run.params["db"] == run.tags[f"t_{value}"] == value
    assert {f"p_{value}", f"nested.{value}"} < set(run.params)
    assert set(run.metrics) == {f"acc_{value}", value}
    assert "*" not in "".join(run.artifacts)
    failure = captured.one("fails").failure
    assert failure is not None
    assert failure.message == f"cannot use {value} or pre{value}post"


@pytest.mark.parametrize("secret", LIKELY)
def test_a_likely_secret_is_masked_in_values_and_texts(secret: str) -> None:
    """A likely secret is masked in parameters, tags, files, errors and output if it is a separate word; names stay."""
    _secrets.remember(secret)

    def act(run: trackdsl.Run) -> None:
        run.log_param("command", f"login --with {secret} now")
        run.set_tag("note", f"({secret})")
        run.log_text(f"first\n{secret}\nlast", "x.txt")
        run.log_metric(secret, 1.0)

    run, files = kept(act)
    assert run.params["command"] == "login --with *** now"
    assert run.tags["note"] == "(***)"
    assert files["x.txt"] == b"first\n***\nlast"
    assert list(run.metrics) == [secret]
    for text in (f"'{secret}'", f"a={secret};b", f"said {secret}.", repr(f"\n{secret}"), f"%3D{secret}&"):
        assert secret not in _secrets.mask_prose(text)


def test_a_short_secret_is_masked_in_errors_alone() -> None:
    """A short secret of seven characters with a digit is masked in errors, and stays elsewhere."""
    _secrets.remember("hunter2")
    assert _secrets.mask_text("hunter2 as a value") == "hunter2 as a value"
    assert _secrets.mask_prose("cannot log in with 'hunter2', nor hunter22") == "cannot log in with '***', nor hunter22"


@given(
    before=st.sampled_from("aZ0_é"), after=st.sampled_from("aZ0_é"), secret=st.sampled_from(["hunter22", "kqzvjxwp"])
)
def test_a_secret_inside_another_word_is_part_of_it(before: str, after: str, secret: str) -> None:
    """A secret that is part of a longer word is not masked."""
    _secrets.remember(secret)
    for text in (before + secret, secret + after, before + secret + after):
        assert _secrets.mask_prose(f"x {text} y") == f"x {text} y"
    assert _secrets.mask_prose(f"{secret}{after} {secret} {before}{secret}") == f"{secret}{after} *** {before}{secret}"


FORMS = {
    "as it is": str,
    "in a KeyError": repr,
    "in JSON": json.dumps,
    "in a URL": lambda secret: urllib.parse.quote(secret, safe=""),
    "in Base64": lambda secret: base64.b64encode(secret.encode()).decode(),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_secret_in_another_form(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret is masked in errors as Python, JSON and URLs write it, also one of the environment among others."""
    for number in range(100):
        _secrets.remember(f"a/b{number}'c\"d\\9!Q")
    monkeypatch.setenv("DB_PASSWORD", "p/w'e\"f\\9:Z")
    for secret in ("a/b7'c\"d\\9!Q", "p/w'e\"f\\9:Z"):
        with capture_runs() as captured, pytest.raises(ValueError, match="at"), stage("f"):
            raise ValueError(f"at {FORMS[form](secret)} now")
        failure = captured.one("f").failure
        assert failure is not None
        assert failure.message.replace("'", "").replace('"', "") == "at *** now"
        assert FORMS[form](secret) not in failure.message + failure.traceback


def test_a_common_value_of_the_environment_stays_in_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    """`POSTGRES_PASSWORD=postgres` masks nothing in messages, and a likely secret of the environment is masked."""
    monkeypatch.setenv("POSTGRES_PASSWORD", "postgres")
    monkeypatch.setenv("DB_PASSWORD", "hunter22")
    assert _secrets.mask_prose("postgres refuses hunter22 of postgresql") == "postgres refuses *** of postgresql"


@pytest.mark.parametrize(
    "name",
    [
        "secret_dim", "dw_pw", "conv_pw", "pass_rate", "pass_at_1", "pass@10", "two_pass", "password_strength_model",
        "password_strength_v2", "password_attempts", "password_features", "password_model_name", "password_accuracy",
        "token_count", "max_tokens", "key_dim", "auth_layers", "auth_loss", "tokenizer", "n_keys",
        "secret_santa_dataset",
        "secret_santa", "secret_sauce_ratio", "api_key_env", "api_keys_used", "keep_token",
        "pooling_token", "answer_token",
        "secret_version", "password_reset_url", "password_hash_rounds", "use_auth", "avg_pw", "ignore_token",
        "page_token",
        "tokens-per-second", "passengerClass", "pass_1", "secret_bits", "num_passwords",
        "credential_stuffing_dataset", "mdp_states", "private_key_size", "secretName",
    ],
)  # fmt: skip
def test_a_name_that_only_looks_secret(name: str) -> None:
    """Properties of secrets, layers, counts and known compounds are public, as parameters, keys, tags and in texts."""
    found = recorded({name: "some value"}, "x").params
    assert recorded("some value", name).params == {name: "some value"}
    assert found == {f"x.{name}": "some value"}
    text = f"a: 1\n{name}: some value\n"
    assert _secrets.mask_text(text) == text


@pytest.mark.parametrize(
    "name",
    [
        "password", "db_password", "token", "secret", "pass", "pw", "db_pw", "mdp", "auth", "user_token",
        "password_hash", "secret_id", "secret_message", "api_key_2", "client_secret", "kaggle_key", "AZURE_STORAGE_KEY",
        "fernet_key", "tavilyKey", "langsmith-key", "db_pass_prod", "openai_key_2", "dsn_staging", "rootpw", "userpass",
        "github_pat", "wifi_psk", "preshared_key", "app_key",
    ],
)  # fmt: skip
def test_a_text_under_the_name_of_a_secret_is_masked(name: str) -> None:
    """A text under the name of a secret is masked, also if it is a common value."""
    assert recorded("disabled", name).params == {name: "***"}


@pytest.mark.parametrize(
    "value", [0.5, 16, True, None, np.float32(0.5), np.int64(3), np.bool_(True), decimal.Decimal("0.5")]
)
@pytest.mark.parametrize("name", ["pass", "pw", "secret", "my_secret", "token", "auth", "mdp", "cookie", "credentials"])
def test_a_number_under_a_doubtful_name_is_data(name: str, value: Any) -> None:
    """A number under a doubtful name is recorded, as parameter, tag, name and text, and in structures and lists."""
    text = str(value)

    run, _ = kept(lambda run: run.set_tags({name: value}))
    assert str(recorded(value, name).params[name]) == str(recorded({name: value}).params[f"x.{name}"]) == text
    assert run.tags[name] == text
    if isinstance(value, (float, int)) and not isinstance(value, bool):
        for line in (
            f"{name}={text}",
            f"train --{name} {text} --lr 1",
            f"{name}: {text}\nlr: 1\n",
            f'{{"{name}": {text}}}',
        ):
            assert _secrets.mask_prose(line) == line
        arguments = ["train", f"--{name}", text]
        assert _secrets.mask_items(arguments) == arguments


@pytest.mark.parametrize(
    "name", ["password", "db_password", "passcode", "pwd", "api_key", "client_secret", "db_pass", "пароль"]
)
def test_a_whole_number_under_an_unmistakable_name_is_a_secret(name: str) -> None:
    """An integer under an unmistakable name, such as a PIN, is masked; a fraction, a flag and None are not."""
    for number in (1234, 123456, np.int64(1234)):
        assert recorded(number, name).params == {name: "***"}
    for other in (0.5, True, None):
        assert recorded(other, name).params == {name: other}
    assert "1234" not in _secrets.mask_text(f"{name}=1234")


@pytest.mark.parametrize(
    "value",
    [
        {"password": "hunter22", "n": 1}, {"password": 1234}, {"passwords": ["a", "b"]},
        {"credentials": {"user": "a", "key": "b"}},
        [["token", "hunter22"]], ["--token", "hunter22", "x"], {"name": "password", "value": "hunter22"},
        {"a": [{"b": {"api_key": 'with "quotes" and \\'}}]}, {"cmd": "login --password hunter22", "n": "1"},
        {"text": "password=hunter22 and more", "url": "https://me:hunter22@host/x"}, ["curl", "-u", "me:hunter22", "h"],
        {"x": json.dumps({"y": json.dumps({"password": "hunter22"})})},
        {"header": "Authorization: Bearer hunter2hunter2"},
        {"sql": "ALTER USER x WITH PASSWORD 'hunter22'"}, {"yaml": "user: me\npassword: hunter22\nport: 1"},
        {"line": "password: hunter22"}, ["X-Api-Key: hunter22"], {"note": 'said "password": "hunter22"'},
    ],
)  # fmt: skip
@pytest.mark.parametrize("indent", [None, 2])
def test_masked_json_is_json(value: Any, indent: int | None) -> None:
    """Masked JSON, also inside JSON, is valid JSON, and its other values are the same."""
    text = json.dumps(value, indent=indent)
    for masked in (_secrets.mask_text(text), recorded(text).params["x"]):
        assert "***" in masked
        assert "hunter22" not in masked
        assert len(json.loads(masked)) == len(value)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("https://h/x?token=12345&page=2", "https://h/x?token=***&page=2"), ("https://h/x?a=1&secret=1234", None),
        ("https://h/x?pass=0.5&secret=3", "https://h/x?pass=0.5&secret=3"), ("secret=1234567890", "secret=***"),
    ],
)  # fmt: skip
def test_numbers_in_texts_that_are_secrets(text: str, masked: str | None) -> None:
    """A code in a URL's query and a long number are masked in texts; rates and sizes are not."""
    assert _secrets.mask_text(text) == (masked or text.replace("1234", "***"))
