"""Masking: what looks like a secret never reaches the journal.

A value is masked by the name it stands under (`password`, `api_key`, …; `choose_names` changes which), by its type, or
by its shape (credentials inside a URL, the documented prefixes of well-known tokens). Values masked by name or type are
remembered, so that they are taken out of whatever else the same process records.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable
from fnmatch import translate
from functools import lru_cache

from trackdsl import errors

MASK = "***"

#: Names are matched in small letters with `_` between their words, by the first of these that is in them.
_SECRET_NAMES = {
    root: re.compile(pattern)
    for root, pattern in {
        "pass": r"pass_?w(?:or)?d(?!less)|pass_?phrase|pass_?codes?(?![a-z])|^pass$"
        r"|(?:^|_)(?:db|database|sql|mysql|pg|postgres|redis|mongo|amqp|smtp|imap|mail|email|ftp|sftp|ssh|ldap|http|proxy"
        r"|user|admin|root|login|auth)_pass$",
        "pw": r"pwd$|(?:^|_)pw$",
        "secret": r"secrets?(?![a-z])|secret_?key",
        "key": r"(?:api|access|private|encryption)_?keys?(?![a-z])"
        r"|(?:^|_)(?:decryption|signing|ssh|rsa|dsa|gpg|pgp|pem|account|subscription|license|master|service|shared|deploy"
        r"|hmac|aes|tls|ssl|jwt|open_?ai|anthropic|azure|aws|gcp|google|gemini|cohere|mistral|groq|wandb|comet|neptune|hf"
        r"|hugging_?face|github|gitlab|slack|stripe|twilio|sendgrid|pinecone|databricks)_?keys?$",
        "token": r"auth_?tokens?(?![a-z])|(?:^|_)(?:access|refresh|api|bearer|id|session|security|oauth2?|csrf|xsrf|sas"
        r"|jwt|personal|hf|hugging_?face|github|gitlab|slack|bot|deploy|webhook)_?tokens?(?![a-z])",
        "cred": r"credentials?(?![a-z])|(?:^|_)creds?(?![a-z])",
        "auth": r"(?:^|_)auth(?:_?(?:header|key|code))?$|authorization(?:_header)?$|auth_?tokens?(?![a-z])",
        "bearer": r"(?:^|_)bearer(?:_auth)?$",
        "conn": r"conn(?:ection)?_?str(?:ing)?s?(?![a-z])",
        "dsn": r"(?:^|_)dsns?$",
        "jwt": r"(?:^|_)jwts?$",
        "cookie": r"(?:^|_)set_?cookies?$",
    }.items()
}
_ROOTS = re.compile("|".join(_SECRET_NAMES))
#: Secret but for the word before it: `pad_token` and `cost_per_token` belong to language models.
_TOKEN_NAME = re.compile(
    r"(?:^|([a-z0-9]{1,20})_)(?:token(?:_?v?\d{1,4}|_value|_str(?:ing)?)?|cookies?(?:_(?:jar|header|value|string))?)$"
)
_HARMLESS = re.compile(
    r"pad(?:ding)?|[besu]os|eo[dt]|sot|unk(?:nown)?|mask(?:ed)?|cls|class|sep(?:arator)?|stop|next|new|last|first|prev"
    r"|previous|current|image|img|audio|video|visual|vision|speech|start|end|begin|prefix|suffix|special|per|max|min|num|n"
    r"|total|use|add|input|output|prompt|target|query|register|text|word|char|sub|subword|blank|control|placeholder"
    r"|trigger|draft|speculative|vocab|system|assistant|tool|think|thinking|timestep|dist|distillation|accept|allow"
    r"|enable|has|is"
)
_BOUNDARY = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[-.\s/:]+")
#: Of a longer name the end decides.
_MAX_NAME = 500
#: Their values are where the program runs, which is in every traceback.
_PLACES = frozenset(["PWD", "OLDPWD"])

# A path made of a URL has lost one of its slashes. What stands behind the colon of a host is a port, not a password;
# `git` is the user of every forge.
_URL_CREDENTIALS = re.compile(
    r"(?P<scheme>:/{1,2})(?!git@[^\s'\"@]*(?:[\s'\"]|$))(?:(?<=//)[^/?#\s'\"]+|[^/?#\s'\":@\[]*:(?!\d*(?:[/?#]|$))[^\s'\"@]{1,200})@"
)
# Parameters of a URL's query, and parts of a connection string.
_PARAMETER = r"(?P<name>[A-Za-z][\w\-. ]{0,40}) ?=(?P<value>[^&;\s'\"]+)"
_QUERY = re.compile(r"(?P<lead>[?&;] ?)" + _PARAMETER)
_FIRST = re.compile(r"(?P<lead>)" + _PARAMETER)
#: Names that are secret in a query alone; of signed addresses of the clouds.
_SIGNATURES = frozenset(["sig", "signature", "x-amz-signature", "x-amz-credential", "x-goog-signature"])
_OPTION = re.compile(
    r"(?<![\w\-])--(?P<name>[A-Za-z][\w\-]{0,60})(?P<equals>[ =])(?P<value>'[^'\n]*'|\"[^\"\n]*\"|[^\s'\"\-]\S*)"
)
# Prefixes as published by the issuers: AWS, GitHub, GitLab, Slack, OpenAI/Anthropic, Google, Stripe, Hugging Face,
# PyPI, npm, Databricks, SendGrid, Docker, age, JSON Web Tokens, HTTP's `Authorization` and private keys in PEM or PGP.
_TOKEN_SHAPE = re.compile(
    r"(?:AKIA|(?<![A-Za-z0-9])ASIA)[A-Z0-9]{16}(?![A-Z0-9])|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}"
    r"|glpat-[\w\-]{20,}|xox[abeposr][-.][\w\-.]{10,}"
    r"|(?<![A-Za-z0-9])sk-(?:(?:proj|ant|svcacct|admin|or-v1)-[\w\-]{10,}|(?:[A-Za-z0-9]{1,12}-){0,3}[A-Za-z0-9_]{16,}[\w\-]*)"
    r"|(?<![A-Za-z0-9])[sr]k_(?:live|test)_[A-Za-z0-9]{16,}|AIza[\w\-]{35}|ya29\.[\w\-]{20,}"
    r"|(?<![A-Za-z])hf_[A-Za-z0-9]{30,}|pypi-[\w\-]{50,}|npm_[A-Za-z0-9]{30,}|dapi[0-9a-f]{32}"
    r"|(?<![A-Za-z0-9])SG\.[\w\-]{22}\.[\w\-]{43}|dckr_pat_[\w\-]{20,}|AGE-SECRET-KEY-1[A-Z0-9]{40,}"
    r"|eyJ[\w\-]{10,2000}\.eyJ[\w\-]{10,4000}\.[\w\-]{0,2000}"
    r"|(?<=Bearer )(?!auth|token|scheme|header|credential)[\w\-.~+/]{8,}=*|(?<=Authorization: Basic )[\w+/]{6,}=*"
    r"|-----BEGIN[A-Z ]*PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END[A-Z ]*PRIVATE KEY(?: BLOCK)?-----|\Z)",
    re.DOTALL,
)
# The name is taken whole or not at all: trying all its beginnings takes longer. Python 3.10 knows a lookahead alone.
_WHOLE = r"([A-Za-z_][\w\-]{0,80}+)" if sys.version_info >= (3, 11) else r"(?=([A-Za-z_][\w\-]{0,80}))\1"
_ASSIGNED = re.compile(rf"(?<![\w\-])-{{0,2}}{_WHOLE}(?:\\*['\"])?[ \t]{{0,8}}([:=])[ \t]{{0,8}}(?=[^\s,;&)}}\]])")
_VALUE = re.compile(
    r"[A-Za-z]{0,2}\\+'[^'\n]*'|[A-Za-z]{0,2}'[^'\\\n]*(?:\\.[^'\\\n]*)*'?"
    r"|[A-Za-z]{0,2}\\+\"[^\"\n]*\"|[A-Za-z]{0,2}\"[^\"\\\n]*(?:\\.[^\"\\\n]*)*\"?"
    r"|(?:(?:[Bb]asic|[Bb]earer|[Dd]igest|[Tt]oken) )?[^\s,;&)}\]'\"]+"
)
_QUOTED = re.compile(r"[A-Za-z]{0,2}\\*['\"](?P<content>[^\n]*?)\\*['\"]?$")
_CODE = frozenset("([{")
_NO_LITERAL = re.compile(
    r"str|int|float|bool|bytes|dict|list|object|string|number|any|none|null|true|false|required", re.IGNORECASE
)

#: A shorter one is taken out of error messages alone: elsewhere it might be a word like any other.
_LONG = 8
_SHORT = 4
#: Bounded: a sweep over a million generated passwords must not grow the program.
_MAX_REMEMBERED = 10_000
#: So many are looked for one by one.
_FEW = 30

#: Names that `mask_name` found nothing in; emptied when a secret is remembered, as that may be one of them.
clean_names: set[str] = set()
_MAX_CLEAN = 10_000

#: Grows when `choose_names` changes what a secret's name is, so that whoever keeps an answer can ask again.
version = 0
_chosen: tuple[re.Pattern[str] | None, re.Pattern[str] | None] = (None, None)


def choose_names(secret: Iterable[str] = (), public: Iterable[str] = ()) -> None:
    """Choose names that are secret beside the well-known ones, and names that are not, whatever they look like.

    Args:
        secret: names; `*` stands for anything, and case does not matter.
        public: the same; these win.
    """
    global _chosen, version
    chosen = (_any_of(secret), _any_of(public))
    if chosen != _chosen:
        _chosen = chosen
        version += 1
        is_secret_name.cache_clear()


def _any_of(names: Iterable[str]) -> re.Pattern[str] | None:
    patterns = [translate(name.strip()) for name in names if name.strip()]
    return re.compile("|".join(patterns), re.IGNORECASE) if patterns else None


@lru_cache(maxsize=8192)
def is_secret_name(name: str) -> bool:
    """Say whether a value under this name is a secret.

    >>> is_secret_name("db_password"), is_secret_name("X-Api-Key"), is_secret_name("max_tokens")
    (True, True, False)
    """
    secret, public = _chosen
    if public is not None and public.match(name):
        return False
    if secret is not None and secret.match(name) is not None:
        return True
    name = name[-_MAX_NAME:]
    small = name.lower()
    if _ROOTS.search(small) is None:
        return False
    words = small if small == name and name.isidentifier() else _BOUNDARY.sub("_", name).lower()
    return _is_well_known(words) or (words != small and _is_well_known(small))


def _is_well_known(words: str) -> bool:
    roots = set(_ROOTS.findall(words))
    if any(_SECRET_NAMES[root].search(words) for root in roots):
        return True
    found = _TOKEN_NAME.search(words) if "token" in roots or "cookie" in roots else None
    return found is not None and (found[1] is None or _HARMLESS.fullmatch(found[1]) is None)


def is_secret(name: str, value: object) -> bool:
    """Say whether this value is a secret under this name: None and booleans are none, nor are counts of tokens.

    >>> is_secret("token", "abc"), is_secret("token", 3), is_secret("pin_password", 3)
    (True, False, True)
    """
    if value is None or not is_secret_name(name):
        return False
    kind = type(value)
    if kind is bool or ((kind is int or kind is float) and "token" in name.lower()):
        secret = _chosen[0]
        return secret is not None and secret.match(name) is not None
    return True


class _Remembered:
    """Secret values, to be taken out of texts. Looking for thousands takes hardly longer than for a few."""

    __slots__ = ("_all", "_starts")

    def __init__(self) -> None:
        self._all: set[str] = set()
        #: The first characters of all, as many as the shortest has, and what begins so.
        self._starts: dict[str, tuple[str, ...]] = {}

    def add(self, text: str) -> None:
        """Add one."""
        global _long_remembered
        if text in self._all:
            return
        if len(self._all) >= _MAX_REMEMBERED:
            errors.report(
                "secrets",
                f"trackdsl has masked {_MAX_REMEMBERED} different secrets; further ones are masked under their names, "
                "and no longer looked for in other texts.",
            )
            return
        self._all.add(text)
        clean_names.clear()
        self._starts[text[:_SHORT]] = (*self._starts.get(text[:_SHORT], ()), text)
        if len(text) >= _LONG and len(_long_remembered) <= _FEW:
            _long_remembered = _longest_first([*_long_remembered, text])

    def clear(self) -> None:
        """Forget all."""
        global _long_remembered
        self._all.clear()
        self._starts.clear()
        _long_remembered = ()

    def within(self, text: str, shortest: int) -> set[str]:
        """Those of at least so many characters that are in a text."""
        starts = self._starts
        # Finding one is two hundred times quicker than making a key of every place, and more of them are not.
        if len(starts) < min(200, len(text) // 2):
            begun = {start for start in tuple(starts) if start in text}
        else:
            begun = {start for at in range(len(text)) if (start := text[at : at + _SHORT]) in starts}
        return {secret for start in begun for secret in starts[start] if len(secret) >= shortest and secret in text}


_remembered = _Remembered()
#: Those that `mask_text` looks for one by one, as long as they are few; then one more than that.
_long_remembered: tuple[str, ...] = ()


def _longest_first(secrets: Iterable[str]) -> tuple[str, ...]:
    """In this order, as a secret may be part of another."""
    return tuple(sorted(secrets, key=len, reverse=True))


def _without(text: str, secrets: Iterable[str]) -> str:
    for secret in secrets:
        if secret in text:
            text = text.replace(secret, MASK)
    return text


def remember(value: object) -> str:
    """Remember a secret value, so that it is taken out of later texts, and return the mask.

    Not so a boolean or a short integer, which would be taken out of everything.
    """
    text = value.decode("utf-8", "replace") if isinstance(value, (bytes, bytearray)) else value
    if isinstance(text, str):
        if len(text) >= _SHORT and text != MASK:
            _remembered.add(str(text))
    elif isinstance(value, int):
        if not isinstance(value, bool) and 10 ** (_LONG - 1) <= abs(value) < 10**100:
            _remembered.add(str(value))
    elif isinstance(value, dict):
        for part in value.values():
            remember(part)
    elif isinstance(value, (list, tuple)):
        for part in value[:100]:
            remember(part)
    return MASK


def mask_text(text: str) -> str:
    """Mask what has the shape of a secret (credentials in URLs, well-known tokens), and remembered values.

    Cheap where there is none.

    >>> mask_text("postgresql://me:hunter2@db/x"), mask_text("https://host/x?api_key=hunter2")
    ('postgresql://***@db/x', 'https://host/x?api_key=***')
    """
    if ":/" in text and "@" in text:
        text = _URL_CREDENTIALS.sub(rf"\g<scheme>{MASK}@", text)
    if len(text) >= 16:
        text = _mask_shapes(text)
    if _long_remembered and len(text) >= _LONG:
        if len(_long_remembered) > _FEW:
            return _without(text, _longest_first(_remembered.within(text, _LONG)))
        for secret in _long_remembered:
            if secret in text:
                text = text.replace(secret, MASK)
    return text


def _mask_shapes(text: str) -> str:
    if "=" in text:
        if _FIRST.match(text) is not None:
            text = _FIRST.sub(_hide_parameter, text, count=1)
        text = _QUERY.sub(_hide_parameter, text)
    if _may_hold_a_token(text):
        text = _TOKEN_SHAPE.sub(MASK, text)
        if "--" in text:
            text = _OPTION.sub(_hide_option, text)
    return text


def _may_hold_a_token(text: str) -> bool:
    """Whether what a token begins with is in a text; looking for one after the other is the quickest way."""
    return (
        ("-" in text and ("sk-" in text or "--" in text or "glpat-" in text or "pypi-" in text or "AGE-" in text))
        or (
            "_" in text
            and ("hf_" in text or "k_live_" in text or "k_test_" in text or "npm_" in text or "_pat_" in text)
        )
        or ("gh" in text and any(start in text for start in ("ghp_", "gho_", "ghu_", "ghs_", "ghr_")))
        or ("." in text and ("eyJ" in text or "SG." in text or "ya29." in text))
        or "xox" in text
        or "AKIA" in text
        or "ASIA" in text
        or "AIza" in text
        or "dapi" in text
        or "Bearer " in text
        or "Basic " in text
    )


def mask_name(name: str) -> str:
    """The same for a name, which comes again and again."""
    masked = mask_text(name)
    if len(clean_names) >= _MAX_CLEAN:
        clean_names.clear()
    clean_names.add(masked)
    return masked


def mask_literals(text: str) -> str:
    """Mask secrets in text that a user wrote: as `mask_text`, and literal values that are assigned to secret names.

    >>> mask_literals("Login(password='hunter2'); token = tokens[i]")
    'Login(password=***); token = tokens[i]'
    """
    text = mask_text(text)
    return _without_assigned(text, _is_literal) if "=" in text or ":" in text else text


def mask_prose(text: str) -> str:
    """Mask secrets in messages: shapes, remembered values, those of the environment, and what secret names are given.

    >>> mask_prose("login(password='hunter2')")
    'login(password=***)'
    """
    text = _without_assigned(mask_text(text))
    found = {
        value
        for name, value in os.environ.items()
        if len(value) >= _LONG and is_secret_name(name) and name not in _PLACES
    }
    return _without(text, _longest_first(found | _remembered.within(text, _SHORT)))


def _hide_parameter(match: re.Match[str]) -> str:
    name = match["name"]
    # What is called or indexed is code.
    if (is_secret_name(name.strip()) or name.lower() in _SIGNATURES) and not _CODE & set(match["value"]):
        return f"{match['lead']}{name}={MASK}"
    return match[0]


def _hide_option(match: re.Match[str]) -> str:
    return f"--{match['name']}{match['equals']}{MASK}" if is_secret_name(match["name"]) else match[0]


def _without_assigned(text: str, hides: Callable[[re.Match[str], re.Match[str]], bool] | None = None) -> str:
    """A text without the values that it gives names of secrets; `hides` says which of them."""
    if _chosen[0] is None and _ROOTS.search(text.lower()) is None:
        return text
    parts, at = [], 0
    for named in _ASSIGNED.finditer(text):
        if is_secret_name(named[1]) and named.start() >= at:
            value = _VALUE.match(text, named.end())
            if value is not None and (hides is None or hides(named, value)):
                parts += [text[at : named.end()], MASK]
                at = value.end()
    return "".join([*parts, text[at:]]) if parts else text


def _is_literal(named: re.Match[str], value: re.Match[str]) -> bool:
    """Whether what is assigned is a value that was written out, rather than code that says where it comes from."""
    quoted = _QUOTED.match(value[0])
    content = value[0] if quoted is None else quoted["content"]
    has_digit = any(map(str.isdigit, content))
    if "token" in named[1].lower():  # Of a text, perhaps.
        return len(content) >= _LONG and has_digit and not _CODE & set(content)
    if quoted is not None:
        return bool(content)
    if _CODE & set(content) or content[0] in "<$|>" or _NO_LITERAL.fullmatch(content):
        return False
    if has_digit:
        return len(content) >= _SHORT
    # A line of its own in an environment file or in YAML.
    text, end = named.string, value.end()
    line = text[text.rfind("\n", 0, named.start()) + 1 : named.start()]
    whole = text[end : end + 1] in ("", "\n", "\r")
    return whole and (not line if named[2] == "=" else not line.strip(" -") and content[0].islower())


errors.mask = mask_prose
