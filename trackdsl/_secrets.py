"""Masking: what looks like a secret never reaches the journal.

A value is masked by the name it stands under (`password`, `api_key`, …; `choose_names` changes which), by its type, or
by its shape (credentials inside a URL, the documented prefixes of well-known tokens). Values masked by name or type are
remembered, so that they are taken out of whatever else the same process records.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from fnmatch import translate
from functools import lru_cache

MASK = "***"

_SECRET_NAME = re.compile(
    r"passw(or)?d|passwd|pwd$|passphrase|secret|api_?key|apikey|access_?key|private_?key|encryption_?key"
    r"|credential|(^|[._-])(auth_?)?token$|_token($|_)|auth_?token|bearer|authorization|connection_?string|cookie",
    re.IGNORECASE,
)
# `max_tokens`, `token_count`, `num_tokens` and the like are hyper-parameters of language models, not secrets.

_URL_CREDENTIALS = re.compile(r"(?P<scheme>://)[^/?#\s'\"]+@")
# Prefixes as published by the issuers: AWS, GitHub, GitLab, Slack, OpenAI/Anthropic, Google, Stripe, Hugging Face,
# PyPI, npm, Databricks, JSON Web Tokens and PEM private keys.
_TOKEN_SHAPE = re.compile(
    r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_[A-Za-z0-9_]{20,}|\bglpat-[\w\-]{20,}"
    r"|\bxox[abposr]-[\w\-]{10,}|\bsk-[\w\-]{20,}|\bsk_live_\w{16,}|\bAIza[\w\-]{35}|\bhf_[A-Za-z0-9]{30,}"
    r"|\bpypi-[\w\-]{50,}|\bnpm_[A-Za-z0-9]{30,}|\bdapi[0-9a-f]{32}|\beyJ[\w\-]{10,2000}\.eyJ[\w\-]{10,4000}\.[\w\-]{1,2000}"
    r"|-----BEGIN[A-Z ]*PRIVATE KEY-----.*?(?:-----END[A-Z ]*PRIVATE KEY-----|\Z)",
    re.DOTALL,
)
_TOKEN_HINT = re.compile(r"AKIA|ASIA|gh[pousr]_|github_pat_|glpat-|xox|sk-|sk_live|AIza|hf_|pypi-|npm_|dapi|eyJ|-----B")
_ASSIGNED = re.compile(
    # Starts at the word itself: a free prefix would be tried from every character of a long text, which is quadratic.
    r"(?P<name>(?:passw(?:or)?d|passwd|passphrase|secret|api_?key|access_?key|private_?key|auth_?token|\btoken)"
    r"[\w\-]{0,64})(?P<equals>['\"]?\s*[:=]\s*)(?P<value>'[^'\n]*'|\"[^\"\n]*\"|[^\s,;)}\]'\"]+)",
    re.IGNORECASE,
)

# Bounded: a sweep over a million generated passwords must not grow the program.
_MAX_REMEMBERED = 1000
#: A shorter one is taken out of error messages alone: elsewhere it might be a word like any other.
_LONG = 8
_SHORT = 4
_remembered: set[str] = set()
_long_remembered: tuple[str, ...] = ()

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

    >>> is_secret_name("db_password"), is_secret_name("max_tokens")
    (True, False)
    """
    secret, public = _chosen
    if public is not None and public.match(name):
        return False
    return (secret is not None and secret.match(name) is not None) or _SECRET_NAME.search(name) is not None


def remember(value: object) -> str:
    """Remember a secret value, so that it is taken out of later texts, and return the mask."""
    global _long_remembered
    text = value.decode("utf-8", "replace") if isinstance(value, (bytes, bytearray)) else value
    if isinstance(text, (str, int)) and not isinstance(text, bool):
        text = str(text)
        if len(text) >= _SHORT and text not in _remembered and len(_remembered) < _MAX_REMEMBERED:
            _remembered.add(text)
            if len(text) >= _LONG:
                # Longest first: a secret may be part of another.
                _long_remembered = tuple(sorted([*_long_remembered, text], key=len, reverse=True))
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

    >>> mask_text("postgresql://me:hunter2@db/x")
    'postgresql://***@db/x'
    """
    if "://" in text and "@" in text:
        text = _URL_CREDENTIALS.sub(rf"\g<scheme>{MASK}@", text)
    if len(text) >= 16 and _TOKEN_HINT.search(text):
        text = _TOKEN_SHAPE.sub(MASK, text)
    if _long_remembered and len(text) >= _LONG:
        for secret in _long_remembered:
            if secret in text:
                text = text.replace(secret, MASK)
    return text


def mask_prose(text: str) -> str:
    """Mask secrets in free text: shapes, remembered values, those of the environment, and assignments to secret names.

    >>> mask_prose("login(password='hunter2')")
    'login(password=***)'
    """
    text = _ASSIGNED.sub(rf"\g<name>\g<equals>{MASK}", mask_text(text))
    found = {value for name, value in os.environ.items() if len(value) >= _LONG and is_secret_name(name)}
    for secret in sorted(found | _remembered, key=len, reverse=True):
        if secret in text:
            text = text.replace(secret, MASK)
    return text
