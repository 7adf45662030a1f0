"""Secrets that are named in a text, a command line or a list: none is written, and other texts do not change."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import unicodedata
from collections.abc import Callable, ItemsView
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import examples
from tests.unit.test_secrets import kept, recorded
from trackdsl import Run, stage, track_returns
from trackdsl._core import redaction as _secrets
from trackdsl._recording import artifacts as _artifacts
from trackdsl.journal import _origin, _target
from trackdsl.testing import capture_runs

#: One with digits, a word, one with signs that stand between names and values elsewhere, and two that end like the name
#: of a password.
PLANTS = ("Zq7hunterX9", "hunterhunter", "a/b+c==9", "$A07Zq000", "0007Zq0PW", "a7Zq!pwd")
#: A marker for the secret in the texts below.
S = "§"


def nested(*keys: str) -> str:
    """JSON in JSON, one level for each key."""
    *outer, last = keys
    text = json.dumps({last: S}, ensure_ascii=False)
    for key in reversed(outer):
        text = json.dumps({key: text}, ensure_ascii=False)
    return text


@pytest.mark.parametrize(
    "text",
    [
        # JSON, the text of structures in Python, and JavaScript
        '{"password": "§"}', "{'password': '§'}", '{"user":"a","password":"§"}', nested("cfg", "password"),
        nested("a", "b", "password"), repr(nested("password")), json.dumps({"password": S}, indent=2),
        '{"contrase\\u00f1a": "§"}', '{"passwords": ["§", "b"]}', '{"credentials": {"user": "a", "key": "§"}}',
        "{password: §, user: a}", 'cfg["password"] = "§"', "os.environ['API_KEY'] = '§'",
        'os.environ.get("API_KEY", "§")', 'password: str = "§"',
        "password => '§'", '"PASSWORD", "x"; password=\'§\'', 'password = """§"""', "if password == '§': pass",
        json.dumps({"password": "x\"'\\§"}, ensure_ascii=False), repr({"password": "x\"'\\§"}),
        json.dumps({"x": json.dumps({"password": "x\"'\\§"}, ensure_ascii=False)}, ensure_ascii=False),
        repr({"x": repr({"password": "x\"'\\§"})}),
        '{"token": {"password": ["§"]}}', '{"secret": {"type": "string", "passwords": ["§"]}}',
        '{"credentials": {"type": "account", "key": "§"}}',
        # YAML
        "password: §", "a: 1\npassword: §\n", "db:\n  user: a\n  password: §\n", "password: |\n  §\n  more\n",
        "password:\n  §\n", "x: 1\npasswords:\n- §\n- b\ny: 1", "credentials:\n  user: bob\n  key: §\nother: 1",
        "user: a\npassword: '§'\nx: 1", "user: a\r\npassword: §\r\n", "user: a\npassword: correct horse § staple\n",
        # TOML, INI, environment files, connection strings, netrc, SQL, XML
        "password = §", 'password = "§"', "[db]\nuser = a\npassword = § and more\n", "DB_PASSWORD=§",
        "export PASSWORD=§", "A=1\nTOKEN=§\n", "host=h user=u password=§ dbname=d", "user=a,password=§,x=1",
        "spring.datasource.password=§", "machine h\nlogin u\npassword §\n", "ALTER USER x WITH PASSWORD '§'",
        "<password>§</password>", '<db:Password a="b">§</db:Password>',
        "<password><![CDATA[§]]></password>", "a: 1\npassword: &anchor §\n", "password: !!str §\n", "password=)§",
        # queries and headers
        "user=a&password=§", "a=1&pwd=§", "user[password]=§&x=1", "x=1&user%5Bpassword%5D=§", "a%3D1%26password%3D§",
        "Authorization: Basic §", "Authorization: token §", "'X-Api-Key: §'", '["X-Api-Key: §"]',
        # names of several words
        "mot de passe: §", "API key: §", "access key = §",
        # command lines
        "train --password §", "train --password  '§ x'", "train --password=§", "-password §",
        "java -Dpassword=§ -jar x",
        "--env=PASSWORD=§", "docker run -e PASSWORD=§ x", "PGPASSWORD=§ psql -h x", "curl -u bob:§ https://h",
        "curl --user bob:§ https://h", "curl --user=bob:§ h", "curl -sSu bob:§ h", "curl -ubob:§ h",
        "curl \\\n  -u bob:§ \\\n  https://h", 'curl -H "Authorization: Basic §" h', "curl -H 'X-Api-Key: §' h",
        "--password\n§\n--lr\n1\n", "/usr/bin/mysql -uroot -p§ db", "mysqldump -p'§' db", "sshpass -p § ssh h",
        "sshpass -p§ ssh h",
        "docker login -u u -p § host", "redis-cli -a § ping", "openssl enc -pass pass:§", "ssh h 'mysql -p§ x'",
        # the same as lists
        "['train', '--token', '§']", '["--token", "§"]', "['--token=§']", "('--password', '§')", "[b'--token', b'§']",
        "['mysql', '-p§', 'db']", "['curl', '-u', 'bob:§', 'https://h']", "['sshpass', '-p', '§', 'ssh']",
        json.dumps({"argv": json.dumps(["--token", S])}, ensure_ascii=False),
        # pairs
        "('password', '§')", "[('token', '§')]", '[["token", "§"]]', "(('api_key', '§'), ('x', 1))",
        "{('password', '§'): 1}", "[(b'authorization', b'Basic §')]", "{b'authorization': b'Basic §'}",
        '{"name": "password", "value": "§"}', '{"value": "§", "name": "password"}',
        "{'Name': 'X-Api-Key', 'Value': '§'}", "- name: A\n  value: b\n- name: DB_PASSWORD\n  value: §\n",
        '[{"key": "x", "value": "y"}, {"key": "api_key", "value": "§"}]', json.dumps([["token", S]], indent=2),
    ],
)  # fmt: skip
def test_a_text_that_names_a_secret(text: str) -> None:
    """The value is masked as parameter, tag, file, name and error; a masked text does not change again."""
    for plant in PLANTS:
        planted = text.replace(S, plant)
        masked = _secrets.mask_text(planted)
        assert plant not in masked
        assert "***" in masked
        assert _secrets.mask_text(masked) == masked
        assert plant not in _secrets.mask_prose(planted)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ('{"user": "a", "password": "x§", "n": 1}', '{"user": "a", "password": "***", "n": 1}'),
        ("user: a\npassword: hunter # x\nport: 1\n", "user: a\npassword: *** # x\nport: 1\n"),
        ("password: |\n  a\n  b\nport: 1", "password: ***\nport: 1"),
        ("user=a&password=b&c=d", "user=a&password=***&c=d"),
        ("curl -u bob:x -o f https://h", "curl -u *** -o f https://h"), ("mysql -px -h h db", "mysql -p*** -h h db"),
        ("['curl', '-u', 'bob:x', 'https://h']", "['curl', '-u', '***', 'https://h']"),
        ("['a', '--token', 'x', '--lr', '1']", "['a', '--token', ***, '--lr', '1']"),
        ("[('token', 'abcd1234'), ('lr', 1)]", "[('token', ***), ('lr', 1)]"),
        ('{"name": "password", "value": "x", "n": 1}', '{"name": "password", "value": "***", "n": 1}'),
        ("host=h password=x dbname=d", "host=h password=*** dbname=d"),
        ("<a><password>x</password><port>1</port></a>", "<a><password>***</password><port>1</port></a>"),
        ("u:p@proxy:3128", "***@proxy:3128"), ("via u:p!$@host.example.com/x", "via ***@host.example.com/x"),
        ("authorization=Bearer Zq7hunterX9", "authorization=***"), ("h?auth=token Zq7&b=1", "h?auth=***&b=1"),
        ("CREATE USER a IDENTIFIED BY 'Zq7'; x", "CREATE USER a IDENTIFIED BY ***; x"),
        ("密码\uff1aZq7hunterX9\n端口\uff1a3306\n", "密码\uff1a***\n端口\uff1a3306\n"),
        ("passwort\uff1dZq7hunterX9", "passwort\uff1d***"),
        ("keytool -storepass x1 -v", "keytool -storepass *** -v"),
        ("u:p@10.0.0.1", "***@10.0.0.1"), ("git clone p:x-oauth-basic@host:o/r", "git clone ***@host:o/r"),
        ("contraseña: x1\npuerto: 2\n", "contraseña: ***\npuerto: 2\n"), ("mot de passe = x\n", "mot de passe = ***\n"),
    ],
)  # fmt: skip
def test_text_beside_a_secret_is_kept(text: str, masked: str) -> None:
    """Only the value is masked, and the text beside it stays."""
    assert _secrets.mask_text(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "the token count: 5", "max_tokens: 5", "tokens: 5", "token: 5", "pad_token='<pad>'", "tokens[i]",
        "password_policy", "next token: Paris", "special token: <eos>", "tokenizer: gpt2", "cost per token: 3.5",
        "loss: 0.5 | token acc: 0.9", "key: value", "primary_key: id", "(token, label)", "['token', 'label']",
        "['password', 'email']", "('password', 'api_key')", "df[['token', 'label']]", "x['token']",
        "for token in tokens: x = token", "if password == stored: pass", "self.password = password\nself.token = token",
        "class A:\n    password: SecretStr\n    token: Optional[str] = None\n",
        "def f(password):\n    return password\n",
        "The password: enter it in the form when asked for it.", "secret = os.environ['X']",
        "Args:\n    password: The password of the user.\n    token: The token.\n\nReturns: x", "password: null",
        '{"password": null, "use_auth": true}', '{"secret": {"type": "string", "minLength": 1}}',
        '"max_password_age": 90',
        "password = get(['a'])", "inc_token = ('{', '(')", 'get_int("MaxPasswordAge", 0)',
        "password: $PASSWORD", "password: $db_password",
        "arn:aws:secretsmanager:eu-west-1:123456789012:secret:db-1a2B3c",
        '"secret_key": config.get("secret_key"),', '{"name": "token_count", "value": "5"}', "<token>Paris</token>",
        '{"token": "Paris", "label": "LOC"}', "docker run -p 8080:80 x", "mysql -p db", "git -p log", "cp -u a b",
        "use --max-tokens 5", "ls -u", "parole: x", "curl https://h/x", "x - token y", "a-token b",
        "password: {password}", "Authorization: Bearer {token}", "secret: ${{ secrets.X }}",
        "mailto:bob@example.com", "python:3.11@sha256:12345abc", "npm:left-pad@1.0.0", "git@github.com:o/r.git",
        "12:30@room", "models:/m@champion", "mdp_gamma: 0.9", "the passage: 5", "mot: passe",
    ],
)  # fmt: skip
def test_a_text_that_holds_no_secret(text: str) -> None:
    """Counts, types, code and sentences are not changed."""
    assert _secrets.mask_text(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "tokenizer: bert-base-uncased", "pad_token_id: 0", "max_new_tokens: 128", "eos_token: </s>", "bos_token: <s>",
        '{"pad_token": {"content": "<pad>", "lstrip": false}}', '{"eos_token": "</s>", "unk_token": "<unk>"}',
        "sort_keys: true", "monitor: val_loss", "keyboard: qwerty", "primary_key: id", "foreign_key: user_id",
        "secret_dim=16", "pass_through: true", "passes: 3", "author: x", "authors: [a, b]", "n_tokens: 5",
        "password_strength_model: lstm", "password_column: pw", "password_dataset: rockyou", "passphrase_length: 6",
        "password_strength: 0.8", "num_passwords: 14000", "secret_sharing: shamir", "credential_helper: store",
        "private_key_path: ~/.ssh/id_rsa", "passwords_file: rockyou.txt", "secret_key_size=2048", "secretDim: 16",
        "token_level: word", "image_token_index: 32000", "use_auth_token: true", "push_to_hub_token: null",
        "initializer_token: toy", "instance_token: sks", "modifier_token: <new1>", "language_token: en",
        'word_delimiter_token: "|"', "decoder_start_token_id: 2", "additional_special_tokens: [<a>]",
        "python train.py --tokenizer gpt2 --max_tokens 100 --secret-dim 16", "model.tokenizer=bert trainer.passes=3",
        "key_padding_mask: true", "query_key_value: true", "first_pass: coarse", "forward_pass: recompute",
        "hf_token: ${oc.env:HF_TOKEN}", "model: {_target_: a.b.Tokenizer, token_dim: 3}", "auth: none",
        "s3://bucket/path/x.parquet", "word: hello", "compass: north", "bypass: true", "donkey: kong",
    ],
)  # fmt: skip
def test_a_configuration_of_a_model(text: str) -> None:
    """Configurations of models and of their training stay public, as text and as parameter."""
    assert _secrets.mask_text(text) == text
    name, sign, value = text.partition(": ")
    if sign and name.isidentifier() and not value.startswith(("{", "[", "$", "null", "none", "true")):
        assert recorded(value, name).params == {name: value}


def test_a_text_is_looked_through_anew_when_secrets_change() -> None:
    """A text without secrets is masked as soon as a part of it, or a name in it, has become a secret."""
    text = "shard: hunter2hunter2 of 7"
    assert _secrets.mask_text(text) == _secrets.mask_text(text) == text
    _secrets.remember("hunter2hunter2")
    assert _secrets.mask_text(text) == "shard: *** of 7"
    assert _secrets.mask_text("shardpin: 1234") == "shardpin: 1234"
    _secrets.choose_names(secret=["shardpin"])
    assert _secrets.mask_text("shardpin: 1234") == "shardpin: ***"
    _secrets.choose_names(public=["password"])
    assert _secrets.mask_text("password: hunter3") == "password: hunter3"
    _secrets.choose_names()
    assert _secrets.mask_text("password: hunter3") == "password: ***"


@pytest.mark.parametrize(
    "name",
    [
        "contraseña", "Contraseña", "CONTRASEÑA", "contrasena", "contraseñas", "miContraseña", "clave_secreta",
        "mot de passe", "mot_de_passe", "motDePasse", "Mot-de-Passe", "mots de passe", "mdp", "db_mdp", "clé_api",
        "Passwort", "datenbank_passwort", "Datenbankpasswort", "Passwörter", "Kennwort", "KENNWORT", "api_schlüssel",
        "senha", "SENHA", "minhaSenha", "palavra-passe", "chave_api", "wachtwoord", "dbWachtwoord", "lösenord",
        "Lösenord", "loesenord", "hasło", "Hasło", "haslo", "haslo_bazy", "parola", "Parolă", "heslo", "salasana",
        "adgangskode", "passord", "lykilorð", "jelszó", "lozinka", "geslo", "şifre", "ŞİFRE", "mật khẩu", "kata_sandi",
        "пароль", "Пароль", "ПАРОЛЬ", "мой_пароль", "парола", "лозинка", "密码", "密碼", "パスワード", "ﾊﾟｽﾜｰﾄﾞ",
        "db_パスワード", "비밀번호", "סיסמה", "كلمة المرور", "รหัสผ่าน", "पासवर्ड", "\uff50\uff41\uff53\uff53",
    ],
)  # fmt: skip
def test_translations_of_password(name: str) -> None:
    """The word for password in other languages, in any case and accents, masks parameters, keys, JSON and YAML."""
    for each in {unicodedata.normalize(form, name) for form in ("NFC", "NFD", "NFKD")}:
        check_name_of_a_password(each)


def check_name_of_a_password(name: str) -> None:
    assert _secrets.is_secret_name(name)
    assert recorded({name: "hunter22"}, "cfg").params == {f"cfg.{name}": "***"}
    _secrets.forget()
    for text in (
        json.dumps({name: "hunter22"}),
        json.dumps({name: "hunter22"}, ensure_ascii=False),
        json.dumps({"x": json.dumps({name: "hunter22"})}),
        f"a: 1\n{name}: hunter22\n",
        f"{name} = hunter22",
    ):
        assert "hunter22" not in _secrets.mask_text(text), text


@pytest.mark.parametrize(
    "name",
    [
        "mdp_gamma", "parole", "contrast", "clave_palabra", "palabra_clave", "passe_partout", "geslacht", "haslett",
        "пар", "compass_order", "kennel", "wachten", "desenha", "sandi_metric", "cle", "schlussel", "密度",
    ],
)  # fmt: skip
def test_words_that_only_resemble_password(name: str) -> None:
    """Words of other languages that only resemble the word for password stay public."""
    assert not _secrets.is_secret_name(name)


class Header(NamedTuple):
    name: str
    value: str


@dataclasses.dataclass
class Variable:
    key: str
    value: str


@pytest.mark.parametrize(
    ("value", "params"),
    [
        (["--token", "PLANT"], {"x": '["--token", "***"]'}), (("--token", "PLANT"), {"x": '["--token", "***"]'}),
        (["--token=PLANT", "-v"], {"x": '["--token=***", "-v"]'}),
        (["curl", "-u", "me:PLANT", "h"], {"x": '["curl", "-u", "***", "h"]'}),
        (["password", "-PLANT"], {"x": '["password", "***"]'}), (["curl", "x", "sh", "-c", "mysql -pPLANT"], None),
        (["mysql", "-pPLANT", "db"], {"x": '["mysql", "-p***", "db"]'}),
        (["mysql", "-p", "db"], {"x": '["mysql", "-p", "db"]'}),
        (["bash", "-c", "mysql -pPLANT"], {"x": '["bash", "-c", "mysql -p***"]'}),
        (["docker", "login", "-p", "PLANT"], {"x": '["docker", "login", "-p", "***"]'}),
        (["docker", "run", "-p", "80:80"], {"x": '["docker", "run", "-p", "80:80"]'}),
        (["-p", "word"], {"x": '["-p", "word"]'}),
        ([["--token", "PLANT"], {"a": 1}], {"x.0": '["--token", "***"]', "x.1.a": 1}),
        (["-H", "Authorization: Bearer PLANT"], {"x": '["-H", "Authorization: Bearer ***"]'}),
        ([("token", "PLANT")], {"x": '[["token", "***"]]'}), (("password", "PLANT"), {"x": '["password", "***"]'}),
        ((("api_key", "PLANT"), ("lr", 1)), {"x": '[["api_key", "***"], ["lr", 1]]'}),
        (["password", "email"], {"x": '["password", "email"]'}), (["token", "label"], {"x": '["token", "label"]'}),
        ({("password", "PLANT"): None}, {"x.('password', ***)": None}), ({("db", "password"): "PLANT"}, None),
        ({b"authorization": "Basic PLANT"}, {"x.b'authorization'": "***"}),
        ({"name": "password", "value": "PLANT"}, {"x.name": "password", "x.value": "***"}),
        ([{"Name": "X-Api-Key", "Value": "PLANT"}], {"x.0.Name": "X-Api-Key", "x.0.Value": "***"}),
        ({"name": "tokens", "value": "12"}, {"x.name": "tokens", "x.value": "12"}),
        (Header("password", "PLANT"), {"x.name": "password", "x.value": "***"}),
        ([Variable("API_KEY", "PLANT")], {"x.0.key": "API_KEY", "x.0.value": "***"}),
        ({"a": urlsplit("ftp://u:PLANT@host:80")}, None), ({"password": "PLANT"}.items(), None),
        (partial(print, password="PLANT"), None), ({("password", "PLANT")}, None),
        (["a", '{"password": "PLANT"}'], {"x": r'["a", "{\"password\": \"***\"}"]'}),
    ],
)  # fmt: skip
def test_lists_and_mappings_that_name_a_secret(value: Any, params: dict[str, Any] | None) -> None:
    """Command lines, pairs, and names beside values are masked as parameters and in files, and are not pickled."""
    plant = "hunter2.horse"
    value = _planted(value, plant)
    found = recorded(value).params
    assert params is None or found == params
    assert plant not in str(found)
    for act in (
        lambda run: run.log_dict({"x": value}, "x.json"),
        lambda run: _artifacts.keep_object(run, "x.json", value),
        lambda run: _artifacts.keep_object(run, "x.pkl", value),
        lambda run: _artifacts.keep_object(run, "x.txt", value),
        lambda run: run.set_tag("x", value),
        lambda run: run.log_table([{"x": value}], "x.json"),
    ):
        _secrets.forget()
        run, files = kept(act)
        assert plant.encode() not in b"".join(files.values())
        assert plant not in str(run.tags)


def _planted(value: Any, plant: str) -> Any:
    if isinstance(value, str):
        return value.replace("PLANT", plant)
    if isinstance(value, dict):
        return {_planted(key, plant): _planted(part, plant) for key, part in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.replace(value, **_planted(vars(value), plant))
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_planted(part, plant) for part in value))
    if isinstance(value, ItemsView):
        return _planted(dict(value), plant).items()
    if isinstance(value, partial):
        return partial(value.func, *_planted(value.args, plant), **_planted(value.keywords, plant))
    return type(value)(_planted(part, plant) for part in value) if isinstance(value, (list, tuple, set)) else value


def test_returned_mappings_and_rows_that_name_a_secret() -> None:
    """Returned values, and the rows of a table, that name a secret are masked."""

    @stage
    @track_returns(artifacts={"env/value": "value.txt", "argv": "argv.json", "text": "text.txt"})
    def f() -> dict[str, Any]:
        return {
            "env": {"name": "password", "value": "hunter22"},
            "argv": ["--token", "hunter23"],
            "text": "pwd: hunter24",
        }

    with capture_runs() as captured:
        f()
        run = captured.one("f")
        written = "".join(path.read_text() for path in run.artifacts.values())
    assert written.count("***") == 3
    assert "hunter2" not in written
    _, files = kept(lambda run: run.log_table([{"name": "password", "value": "hunter22"}], "x.json"))
    assert b"hunter2" not in b"".join(files.values())


NAMES = st.sampled_from(
    [
        "password", "DB_PASSWORD", "api_key", "apiKey", "X-Api-Key", "client_secret", "access_token", "passwd", "pwd",
        "contraseña", "mot_de_passe", "Passwort", "пароль", "密码", "hasło",
    ]
)  # fmt: skip
#: No text that is in the journal anyway.
SECRETS = st.from_regex(r"[A-Za-z0-9!$.+/_]{3,20}7Zq[A-Za-z0-9!$.+/_]{3,20}", fullmatch=True)

CONTAINERS: dict[str, Callable[[str, str], Any]] = {
    "json": lambda name, secret: json.dumps({"a": 1, name: secret, "b": [1]}),
    "json in json": lambda name, secret: json.dumps({"cfg": json.dumps({"x": json.dumps({name: secret})})}),
    "repr": lambda name, secret: repr({"a": {name: secret}}),
    "yaml": lambda name, secret: f"user: me\ndb:\n  host: h\n  {name}: {secret}\nport: 1\n",
    "yaml, quoted": lambda name, secret: f"user: me\n{name}: '{secret}'\n",
    "yaml block": lambda name, secret: f"{name}: |\n  {secret}\nport: 1\n",
    "toml": lambda name, secret: f'[db]\nuser = "me"\n{name} = "{secret}"\n',
    "ini": lambda name, secret: f"[db]\nuser = me\n{name} = {secret}\n",
    "query": lambda name, secret: urlencode({"user": "me", name: secret, "page": 1}),
    "url": lambda name, secret: "https://host/x?" + urlencode({"page": 1}) + f"&{name}={secret}",
    "argv": lambda name, secret: ["run", f"--{name}", secret, "-v"],
    "argv, joined": lambda name, secret: ["run", f"--{name}={secret}"],
    "command": lambda name, secret: f"run --{name} {secret} -v",
    "pair": lambda name, secret: (name, secret),
    "pairs": lambda name, secret: [("lr", 1), (name, secret)],
    "tuple key": lambda name, secret: {(name, secret): 1},
    "path as a key": lambda name, secret: {("db", name): secret},
    "bytes as a key": lambda name, secret: {name.encode(): secret},
    "name and value": lambda name, secret: [{"name": name, "value": secret}],
    "nested": lambda name, secret: {"a": [{"b": ({name: [secret, secret]},)}]},
    "header": lambda name, secret: [f"{name}: {secret}"],
}


@pytest.mark.parametrize("container", CONTAINERS)
@settings(max_examples=examples(40), suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(name=NAMES, secret=SECRETS)
def test_no_byte_of_the_journal_holds_a_secret(
    container: str, name: str, secret: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No secret is in the journal: as argument, parameter, tag, name, file, return value, message or traceback."""
    monkeypatch.setattr(_origin, "ask_git", lambda directory: None)
    _target.close_all()
    shutil.rmtree(tmp_path / "spool", ignore_errors=True)
    value = CONTAINERS[container](name, secret)

    @stage("fit {value}")
    @track_returns
    def fit(value: Any) -> Any:
        return {"given": value}

    def record(run: Run) -> None:
        for act in (
            lambda: fit(value), lambda: run.log_param("x", value), lambda: run.log_params({"y": {"z": [value]}}),
            lambda: run.set_tag("x", value), lambda: run.log_dict({"x": value}, "x.json"),
            lambda: run.log_dict({"x": value}, "x.yaml"), lambda: run.log_text(str(value), "x.txt"),
            lambda: run.log_metric(str(value)[:200], 1.0), lambda: run.log_table({"x": [value]}, "x.json"),
        ):  # fmt: skip
            _secrets.forget()
            act()

    with stage("outer") as run:
        record(run)
    _secrets.forget()
    with pytest.raises(ValueError, match="cannot"), stage("failing"):
        raise ValueError(f"cannot start {value}")
    written = [path for path in (tmp_path / "spool").rglob("*") if path.is_file()]
    assert any(path.suffix == ".seg" for path in written)
    for path in written:
        content = path.read_bytes()
        assert secret.encode() not in content, path
        assert json.dumps(secret)[1:-1].encode() not in content, path


def test_the_name_of_a_program_holds_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """The recorded source name has no secret of the program's command line."""
    monkeypatch.setattr(
        sys, "argv", ["serve --password hunter22 --db postgresql://me:hunter23@db/x", "--token=hunter24"]
    )
    assert "hunter2" not in str(_origin.origin("sqlite:///x.db", "/"))


@pytest.mark.parametrize(
    "unit",
    [
        "password: [", "password: {\n", "password='", 'password="', 'password=\\"', "password: ", "password:\n",
        "password: |\n", "- password:\n", "--password ", "--password=",
        "curl -x ", "'curl', '-x', ", "'--password', ", "curl ", "curl -u ",
        "'curl', ", "mysql -p", "curl '", "('password', ", "name: password value: ", "value: x, name: ", "<password>",
        "<password a", 'password: ["type": ', 'token: ["a", ',
        "login a password ", "identified by '", "mot de ", "a key ", "\\", "\\\\'", "password: \\\\'",
        "%3Dpassword", "password: str ", "password: a b c ", "contrasen\u0303a: ", "=", "'", " -a", "a:b@", "u:p@h.",
        "a:", "=a:b@h:", "password=(",
        "Authorization: Basic ", "'password: ", "password = a #", "пароль: ", "\u0303", "k: |\n  a\n",
    ],
)  # fmt: skip
def test_masking_of_long_texts_ends(unit: str) -> None:
    """Masking takes a time that is linear in a text's length: else it would take minutes."""
    text = unit * (50_000 // len(unit))
    assert "hunter22" not in _secrets.mask_prose(f"{text} https://me:hunter22@host/")


def test_masking_of_long_lists_ends() -> None:
    """Masking takes a time that is linear in the number of arguments of a command line."""
    arguments = ["curl", "-u", "--password", "mysql", "-p"] * 20_000
    assert "hunter22" not in _secrets.mask_items([*arguments, "--token", "hunter22"])
