"""Secrets in command lines: values of options with names of secrets, and of short options of well-known programs.

A command line is one text or a list of words. A text may also contain the list as Python or JSON writes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from trackdsl._core.redaction._names import is_number, is_secret_name
from trackdsl._core.redaction._shapes import MASK, masked_like
from trackdsl._core.redaction._values import end_of_quoted, value_at

_OPTION = re.compile(
    r"(?<![\w\-])(?P<dashes>--?)(?P<name>[^\W\d][\w\-.]{1,60})"
    r"(?P<given>(?P<quote>\\*['\"])[ \t]{0,8},\s{0,40}(?=[bru]{0,2}\\*['\"])|="
    r"|[ \t]{1,8}(?:\\\n[ \t]{0,8})?(?=[^\s\-])|\r?\n(?=[^\s\-]))"
)
_OPENING = re.compile(r"\\*['\"]\Z")
_WORD = re.compile(r"(?:'[^'\n]*'|\"[^\"\\\n]*(?:\\.[^\"\\\n]*)*\"|\\[^\n]|[^\s'\"\\])+")
_COMMAND_WORD = re.compile(r"(?:'[^'\n]*'|\"[^\"\\\n]*(?:\\.[^\"\\\n]*)*\"|\\[^\n]|[^\s'\"\\|;&])+")
_BETWEEN_WORDS = re.compile(r"(?:[ \t]|\\\n)+")
_BETWEEN_ITEMS = re.compile(r"\s{0,40},\s{0,40}(?=[bru]{0,2}\\*['\"])")

#: Options of well-known programs that take a secret, as the next word or as the rest of the same word.
_PROGRAMS: dict[str, tuple[str, ...]] = {
    "curl": ("-u", "-U", "--user", "--proxy-user", "--oauth2-bearer", "-b", "--pass", "--proxy-pass", "-E", "--cert"),
    "http": ("-a", "--auth"),
    "sshpass": ("-p",),
    "redis-cli": ("-a", "--pass"),
    "plink": ("-pw",),
    "openssl": ("-passin", "-passout", "-pass", "-k"),
    "smbclient": ("-U", "--user"),
    "lftp": ("-u", "--user"),
    "ab": ("-A", "-P"),
    **dict.fromkeys(("mongo", "mongosh", "mongodump", "mongorestore", "mongoexport", "mongoimport"), ("-p",)),
    **dict.fromkeys(("cqlsh", "beeline", "twine", "hydra", "mosquitto_passwd"), ("-p",)),
    **dict.fromkeys(("sqlcmd", "bcp", "isql", "osql", "zip", "unzip", "mosquitto_pub", "mosquitto_sub"), ("-P",)),
    **dict.fromkeys(("ldapsearch", "ldapadd", "ldapmodify", "ldapdelete", "ldapwhoami", "ldappasswd"), ("-w",)),
    "ipmitool": ("-P",),
}
#: The same, but only as the rest of the word: `mysql -p` alone asks for the password.
_ATTACHED = {
    **dict.fromkeys(("mysql", "mysqldump", "mysqladmin", "mysqlimport", "mysqlshow", "mysqlcheck"), ("-p",)),
    **dict.fromkeys(("mariadb", "mariadb-dump", "mariadb-admin", "7z", "7za", "7zr", "7zz", "rar", "unrar"), ("-p",)),
}
#: The same, but only after the word `login`: in other commands, `-p` publishes a port.
_LOGIN = dict.fromkeys(
    ("docker", "podman", "nerdctl", "buildah", "skopeo", "helm", "oras", "crane", "oc", "az", "registry"), ("-p",)
)
_KNOWN = {**_PROGRAMS, **_ATTACHED, **_LOGIN}
_PROGRAM = re.compile(
    rf"(?<![\w.\-])(?:{'|'.join(sorted(map(re.escape, _KNOWN), reverse=True))})(?:\.exe)?"
    r"(?=[ \t]|\\*['\"][ \t]{0,8},|\\\n)"
)
_MAX_WORDS = 500


def without_options(text: str) -> str:
    """Mask the values of options that have the name of a secret, or that take one in a well-known program.

    >>> without_options("train --api-key hunter2 --lr 1"), without_options("curl -u me:hunter2 https://host")
    ('train --api-key *** --lr 1', 'curl -u *** https://host')
    """
    text = _without_named(text)
    return _without_known(text) if _PROGRAM.search(text) else text


def _without_named(text: str) -> str:
    parts, at = [], 0
    for option in _OPTION.finditer(text):
        if option.start() < at or not is_secret_name(option["name"]):
            continue
        end = _end_of_given(text, option)
        if end > option.end() and not is_number(option["name"], text[option.end() : end]):
            parts += [text[at : option.end()], masked_like(option["quote"])]
            at = end
    return "".join([*parts, text[at:]]) if parts else text


def _end_of_given(text: str, option: re.Match[str]) -> int:
    """The end of the value of an option; its start if there is no value."""
    start = option.end()
    if option["quote"] is not None:
        value = value_at(text, start)
        return start if value is None else value.end
    opening = _OPENING.search(text, max(0, option.start() - 20), option.start())
    if option["given"] == "=" and opening is not None:  # The option itself is in quotes.
        return end_of_quoted(text, start, opening[0])
    word = _WORD.match(text, start)
    return start if word is None else word.end()


def _without_known(text: str) -> str:
    parts, at = [], 0
    seen: set[int] = set()  # The end of the words that belong to an earlier program.
    for program in _PROGRAM.finditer(text):
        if program.start() < at or program.end() in seen:
            continue
        spans = list(_words_behind(text, program))
        words = [text[start:end] for start, end in spans]
        seen.update(end for _, end in spans)
        for index, word in sorted(known_secrets([program[0], *words]).items()):
            start, end = spans[index - 1]
            if start >= at:
                parts += [text[at:start], word]
                at = end
    return "".join([*parts, text[at:]]) if parts else text


def _words_behind(text: str, program: re.Match[str]) -> Iterator[tuple[int, int]]:
    """The start and end of each word after the program of a command, without the quotes of a list's items."""
    at = program.end()
    listed = text[at] in "\\'\"" and not text.startswith("\\\n", at)
    if listed:
        at = text.find(",", at)
    for _ in range(_MAX_WORDS):
        between = (_BETWEEN_ITEMS if listed else _BETWEEN_WORDS).match(text, at)
        if between is None:
            return
        if listed:
            value = value_at(text, between.end())
            if value is None or not value.quoted:
                return
            start = text.find(value.content, between.end()) if value.content else between.end()
            yield start, start + len(value.content)
            at = value.end
        else:
            word = _COMMAND_WORD.match(text, between.end())
            if word is None:
                return
            yield word.span()
            at = word.end()


def known_secrets(words: Sequence[str]) -> dict[int, str]:
    """The words with a secret in an option of a well-known program, by index, with the secret masked."""
    found: dict[int, str] = {}
    program, given = "", False
    options: Sequence[str] = ()
    for index, word in enumerate(words):
        if given and not word.startswith("-"):
            found[index] = MASK
        given = False
        if not word.startswith("-"):
            name = re.split(r"[/\\]", word)[-1].removesuffix(".exe")
            if name in _KNOWN:
                program, options = name, () if name in _LOGIN else _KNOWN[name]
            elif name == "login" and program in _LOGIN:
                options = _LOGIN[program]
        elif word in options:
            given = program not in _ATTACHED
        elif (option := _option_of(program, options, word)) is not None:
            given = len(option) == len(word)
            if not given:
                found[index] = option + MASK
    return found


def _option_of(program: str, options: Sequence[str], word: str) -> str | None:
    """The option at the start of a longer word; the whole word for combined short options such as `curl -sSu`."""
    for option in options:
        if option.startswith("--"):
            if word.startswith(f"{option}="):
                return f"{option}="
        elif len(option) == 2 and word.startswith(option):
            return option
        elif program == "curl" and re.fullmatch(rf"-[A-Za-z]{{1,8}}{option[1]}", word):
            return word
    return None


def secrets_among(words: Sequence[str]) -> dict[int, str]:
    """The words of a command line that contain a secret, by index, with the secret masked; see `known_secrets`.

    >>> secrets_among(["train", "--token", "hunter2"])
    {2: '***'}
    """
    found = known_secrets(words)
    for index, word in enumerate(words[:-1]):
        if word.startswith("-") and "=" not in word and not words[index + 1].startswith("--"):
            name = word.lstrip("-")
            if len(name) > 1 and is_secret_name(name) and not is_number(name, words[index + 1]):
                found[index + 1] = MASK
    return found
