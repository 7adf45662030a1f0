"""Masking: what looks like a secret never reaches the journal.

A value is masked by the name it stands under (`password`, `api_key`, …) or by its shape (credentials inside a URL,
the documented prefixes of well-known tokens). Values masked by name are remembered, so that they can be taken out of
error messages and tracebacks of the same process too.
"""

from __future__ import annotations

import re
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
_remembered: set[str] = set()


@lru_cache(maxsize=4096)
def is_secret_name(name: str) -> bool:
    """Say whether a value under this name is a secret.

    >>> is_secret_name("db_password"), is_secret_name("max_tokens")
    (True, False)
    """
    return _SECRET_NAME.search(name) is not None


def remember(value: object) -> str:
    """Remember a secret value, so that `mask_prose` takes it out of later texts, and return the mask."""
    if isinstance(value, str) and len(value) >= 4 and len(_remembered) < _MAX_REMEMBERED:
        _remembered.add(str(value))
    return MASK


def mask_text(text: str) -> str:
    """Mask what has the shape of a secret: credentials in URLs, well-known tokens. Cheap where there is none.

    >>> mask_text("postgresql://me:hunter2@db/x")
    'postgresql://***@db/x'
    """
    if "://" in text and "@" in text:
        text = _URL_CREDENTIALS.sub(rf"\g<scheme>{MASK}@", text)
    if len(text) >= 16 and _TOKEN_HINT.search(text):
        text = _TOKEN_SHAPE.sub(MASK, text)
    return text


def mask_prose(text: str) -> str:
    """Mask secrets in free text: shapes, remembered values, and assignments such as `password="…"`.

    >>> mask_prose("login(password='hunter2')")
    'login(password=***)'
    """
    text = _ASSIGNED.sub(rf"\g<name>\g<equals>{MASK}", mask_text(text))
    # Longest first: a secret may be part of another.
    for secret in sorted(_remembered, key=len, reverse=True):
        if secret in text:
            text = text.replace(secret, MASK)
    return text
