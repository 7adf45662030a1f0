"""Patterns of secrets that need no name: credentials in URLs, signed addresses, tokens of well-known issuers."""

from __future__ import annotations

import re

from trackdsl._core.late_pattern import late_pattern
from trackdsl._core.redaction._names import is_number, is_secret_name

MASK = "***"
#: A name that is called or indexed is code.
CODE = frozenset("([{")

# A URL that was turned into a path has only one slash. After the colon of a host comes a port, not a password;
# `git` is the user name of all code hosts.
_URL_CREDENTIALS = late_pattern(
    r"(?P<scheme>:/{1,2})(?!git@[^\s'\"@]*(?:[\s'\"]|$))(?:(?<=//)[^/?#\s'\"]+|[^/?#\s'\":@\[]*:(?!\d*(?:[/?#]|$))[^\s'\"@]{1,200})@"
)
# The same without a scheme, as for proxies and git. An address after `mailto:` or `From:` is not a user.
_USER_AT_HOST = late_pattern(
    r"(?<![^\s'\"=])(?!(?:mailto|e-?mail|to|from|b?cc|author|contact|sips?|xmpp|acct|maintainer):)[^\s:/@'\"=,(\[{]{1,100}"
    r":(?:x-oauth-basic@|[^\s/@'\"]{1,200}@(?!sha\d)(?=[A-Za-z0-9.\-]{1,253}:\d{2,5}(?![\w.])"
    r"|(?:[A-Za-z0-9\-]{1,63}\.){1,8}[A-Za-z]{2,24}(?:$|[\s'\",)\]:/])|localhost(?![\w.])|\d{1,3}(?:\.\d{1,3}){3}(?![\w.])))",
    re.IGNORECASE,
)
# Addresses that are secrets: anyone who knows them can write. Those of Telegram contain the token of a bot.
_SECRET_ADDRESS = late_pattern(
    r"(?<=hooks\.slack\.com/)(?:services|workflows|triggers)/[\w/\-]{10,}|(?<=/api/webhooks/)\d{5,}/[\w\-]{10,}"
    r"|(?<=\.webhook\.office\.com/)[\w@/\-]{10,}|(?<=/bot)\d{6,}:[\w\-]{20,}"
)
# Parameters of a URL's query, and parts of a connection string.
_PARAMETER = (
    r"(?P<name>[A-Za-z][\w\-. ]{0,40}) ?=(?![=>~])"
    r"(?P<value>(?:(?i:basic|bearer|digest|token|apikey|negotiate) (?=[^\s'\"&;]))?[^&;\s'\"]+)"
)
_QUERY = late_pattern(r"(?P<lead>[?&;] ?)" + _PARAMETER)
_FIRST = late_pattern(r"(?P<lead>)" + _PARAMETER)
_SHORTEST_CODE = 4
#: Names that are only secret in a query, in signed addresses of cloud storage.
_SIGNATURES = frozenset(["sig", "signature", "x-amz-signature", "x-amz-credential", "x-goog-signature"])
# Prefixes as published by the issuers: AWS, GitHub, GitLab, Slack, OpenAI/Anthropic, Google, Stripe, Hugging Face,
# PyPI, npm, Databricks, SendGrid, Docker, age, JSON Web Tokens, HTTP's `Authorization`, users of SQL, private
# keys in PEM or PGP.
_TOKEN_SHAPE = late_pattern(
    r"(?:AKIA|(?<![A-Za-z0-9])ASIA)[A-Z0-9]{16}(?![A-Z0-9])|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}"
    r"|glpat-[\w\-]{20,}|xox[abeposr][-.][\w\-.]{10,}"
    r"|(?<![A-Za-z0-9])sk-(?:(?:proj|ant|svcacct|admin|or-v1)-[\w\-]{10,}|(?:[A-Za-z0-9]{1,12}-){0,3}[A-Za-z0-9_]{16,}[\w\-]*)"
    r"|(?<![A-Za-z0-9])[sr]k_(?:live|test)_[A-Za-z0-9]{16,}|AIza[\w\-]{35}|ya29\.[\w\-]{20,}"
    r"|(?<![A-Za-z])hf_[A-Za-z0-9]{30,}|pypi-[\w\-]{50,}|npm_[A-Za-z0-9]{30,}|dapi[0-9a-f]{32}"
    r"|(?<![A-Za-z0-9])SG\.[\w\-]{22}\.[\w\-]{43}|dckr_pat_[\w\-]{20,}|AGE-SECRET-KEY-1[A-Z0-9]{40,}"
    r"|eyJ[\w\-]{10,2000}\.eyJ[\w\-]{10,4000}\.[\w\-]{0,2000}"
    r"|(?<=Bearer )(?!auth|token|scheme|header|credential)[\w\-.~+/]{8,}=*|(?<=Authorization: Basic )[\w+/]{6,}=*"
    r"|(?<=IDENTIFIED BY )'[^'\n]{1,500}'"
    r"|-----BEGIN[A-Z ]*PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END[A-Z ]*PRIVATE KEY(?: BLOCK)?-----|\Z)",
    re.DOTALL,
)


def masked_like(quote: str | None) -> str:
    """The mask for a value, quoted like the name next to it, so that JSON stays JSON.

    >>> masked_like('"'), masked_like("'"), masked_like(None)
    ('"***"', '***', '***')
    """
    return f"{quote}{MASK}{quote}" if quote is not None and quote[-1:] == '"' else MASK


def without_shapes(text: str) -> str:
    """Mask the values in a text that have the pattern of a secret. A text without any takes little time."""
    if ":/" in text:
        if "@" in text:
            text = _URL_CREDENTIALS().sub(rf"\g<scheme>{MASK}@", text)
        if "hook" in text or "/bot" in text:
            text = _SECRET_ADDRESS().sub(MASK, text)
    if "@" in text and ":" in text:
        text = _USER_AT_HOST().sub(f"{MASK}@", text)
    if "=" in text:
        if _FIRST().match(text) is not None:
            text = _FIRST().sub(_hide_parameter, text, count=1)
        text = _QUERY().sub(_hide_parameter, text)
    if len(text) >= 16 and _may_hold_a_token(text):
        text = _TOKEN_SHAPE().sub(MASK, text)
    return text


def _may_hold_a_token(text: str) -> bool:
    """Whether a prefix of a token is in a text. Searching for one after the other is fastest."""
    return (
        (
            "-" in text
            and ("sk-" in text or "PRIVATE KEY" in text or "glpat-" in text or "pypi-" in text or "AGE-" in text)
        )
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
        or "IDENTIFIED BY " in text
    )


def _hide_parameter(match: re.Match[str]) -> str:
    name, value = match["name"], match["value"]
    # In the query of a URL, a number of several digits is a code for a login.
    code = match["lead"][:1] in ("?", "&") and value.isdigit() and len(value) >= _SHORTEST_CODE
    named = is_secret_name(name.strip()) and (code or not is_number(name.strip(), value))
    # A name that is called or indexed is code.
    if (named or name.lower() in _SIGNATURES) and not CODE & set(value):
        return f"{match['lead']}{name}={MASK}"
    return match[0]
