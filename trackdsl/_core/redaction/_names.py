"""Names of secrets: `password`, `api_key`, the same in other languages, and names that the user has chosen."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from fnmatch import translate
from functools import cache, lru_cache
from numbers import Integral, Number

from trackdsl._core.redaction import _clean

#: Letters that no Unicode normal form decomposes.
_LETTERS = str.maketrans(
    {"ł": "l", "đ": "d", "ð": "d", "ø": "o", "ß": "ss", "æ": "ae", "œ": "oe", "\u0131": "i", "þ": "th"}
    | {"Ł": "L", "Đ": "D", "Ð": "D", "Ø": "O", "ẞ": "SS", "Æ": "AE", "Œ": "OE", "Þ": "TH"}
)
#: Marks that belong to the letter before them: in text that is decomposed into letters and accents, and in Indic
#: languages, Thai, Arabic and Hebrew. A name may contain them, but `\w` does not match them.
MARKS = "\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0900-\u0e4e\u3099\u309a"
_ACCENTS = re.compile("[\u0300-\u036f\u3099\u309a]+")


def fold(text: str) -> str:
    """A text without accents, and with full-width and half-width letters replaced.

    >>> fold("Contraseña"), fold("hasło")
    ('Contrasena', 'haslo')
    """
    return text if text.isascii() else _ACCENTS.sub("", unicodedata.normalize("NFKD", text.translate(_LETTERS)))


#: Letters as JSON writes them, and bytes of UTF-8 as URLs and Python do.
_ESCAPED_LETTER = re.compile(r"\\+u([0-9A-Fa-f]{4})")
_ESCAPED_BYTES = re.compile(r"(?:(?:\\+x|%)[89A-Fa-f][0-9A-Fa-f])+")

#: Words for a password in languages with other scripts; `_` separates words.
_FOREIGN = fold(
    "парол|лозинка|пассворд|құпиясөз|密码|密碼|口令|密钥|密鑰|令牌|パスワード|合言葉|비밀번호|패스워드|암호|סיסמה|סיסמא"
    "|كلمة_المرور|كلمة_السر|كلمة_مرور|رمز_عبور|گذرواژه|κωδικος_προσβασης|συνθηματικο|รหัสผ่าน|पासवर्ड|পাসওয়ার্ড|գաղտնաբառ|პაროლი"
).split("|")

#: Names are matched in lower case with `_` between their words, by the first of these that they contain.
_SECRET_NAMES = {
    "pass": r"pass_?w(?:or)?d(?!less)|pass_?wo?e?rt|pass_?ord(?![a-z])|pass_?phrase|pass_?codes?(?![a-z])|^pass$"
    r"|^(?:key|store)_?pass$"
    r"|(?:mots?_?de|palavras?)_?passe(?![a-z])"
    r"|(?:^|_)(?:db|database|sql|mysql|pg|postgres|redis|mongo|amqp|smtp|imap|mail|email|ftp|sftp|ssh|ldap|http|proxy"
    r"|user|admin|root|login|auth|wifi|vpn|zip|bind|service|my|the)_?pass$",
    # Beside `dw`, and as a layer, `pw` is the pointwise part of a convolution.
    "pw": r"pwd$|^pw$|(?:^|_)(?:root|bind|admin|user|db|ldap|ssh)pw$"
    r"|(?:^|_)(?!(?:dw|conv\w{0,3}|kernel|n|num|use|has|is|with|expand|reduce|proj|project|linear|lin|bn"
    r"|norm|act|relu|block|layer|depthwise|sep|groups?|stride|pad|padding|bias|ratio|in|out|first|last|mid"
    r"|avg|average|mean|median|max|min|sum|total|std|var|cv|peak)_pw$)[^_]+_pw$",
    "secret": r"secrets?(?!_(?:santas?|sauces?|agents?|gardens?|society|hitler|history|recipes?)(?![a-z]))(?![a-z])"
    r"|secret_?key|secret[oa]s?(?![a-z])",
    "key": r"(?:api|access|private|encryption)_?keys?(?![a-z])"
    r"|(?:^|_)(?:decryption|signing|ssh|rsa|dsa|gpg|pgp|pem|account|subscription|license|master|service|(?:pre_?)?shared|deploy"
    r"|hmac|aes|tls|ssl|jwt|fernet|kaggle|app|application|open_?ai|anthropic|azure(?:_[a-z]{1,12})?|aws|gcp|google|gemini|cohere"
    r"|mistral|groq|deep_?seek|xai|perplexity|together(?:_?ai)?|fireworks|openrouter|nvidia|ngc|voyage|jina|serper|serpapi"
    r"|tavily|lang(?:smith|chain|fuse)|qdrant|weaviate|elastic|eleven_?labs|deepgram|assembly_?ai|mailgun|datadog|sentry"
    r"|wandb|comet|neptune|clearml|hf|hugging_?face|github|gitlab|slack|stripe|twilio|sendgrid|pinecone|databricks)_?keys?$",
    "token": r"auth_?tokens?(?![a-z])|(?:^|_)(?:access|refresh|api|bearer|id|session|security|oauth2?|csrf|xsrf|sas"
    r"|jwt|personal|hf|hugging_?face|github|gitlab|slack|bot|deploy|webhook)_?tokens?(?![a-z])",
    "pat": r"(?:^|_)(?:github|gitlab|azure|devops|ado|databricks|personal)_pat$",
    "psk": r"(?:^|_)(?:wifi|wpa2?)_?psk$",
    "signature": r"(?:^|_)shared_access_signature$",
    "cred": r"credentials?(?![a-z])|(?:^|_)creds?(?![a-z])",
    "auth": r"(?:^|_)(?<!use_)(?<!is_)(?<!has_)(?<!no_)auth(?:_?(?:header|key|code))?$"
    r"|authorization(?:_header)?$|auth_?tokens?(?![a-z])",
    "bearer": r"(?:^|_)bearer(?:_auth)?$",
    "conn": r"conn(?:ection)?_?str(?:ing)?s?(?![a-z])",
    "dsn": r"(?:^|_)dsns?$",
    "jwt": r"(?:^|_)jwts?$",
    "cookie": r"(?:^|_)set_?cookies?$",
    # Passwords and keys in other languages, without accents.
    "mdp": r"(?:^|_)mdp$",
    "contras": r"contrase(?:na|nia|nya)|contrasinal",
    "clave": r"^clave$|(?:^|_)clave_?(?:de_)?(?:secreta|privada|api|acceso)",
    "chave": r"(?:^|_)chave_?(?:de_)?(?:secreta|privada|api|acesso)",
    "cle_": r"(?:^|_)cle_(?:secrete|privee|api|d_acces)",
    "senha": r"(?:^|_)senhas?(?![a-z])",
    "kenn": r"kenn_?w(?:ort|oert)",
    "schl": r"(?:api|zugangs|zugriffs)_?schlue?ssel",
    "geheim": r"geheim(?:nis|wort|schlue?ssel)",
    "wacht": r"wacht_?woord",
    "paswoord": r"paswoord",
    "senord": r"loe?senord",
    "adgangskode": r"adgangskode",
    "kodeord": r"kodeord",
    "lykilord": r"lykilord",
    "salasana": r"salasana",
    "hasl": r"(?:^|_)hasl[oa](?![a-z])",
    "hesl": r"(?:^|_)hesl[oa](?![a-z])",
    "gesl": r"(?:^|_)gesl[oa](?![a-z])",
    "lozink": r"lozink[aeu]",
    "parol": r"(?:^|_)parol(?:a|as|i)?(?![a-z])|parool",
    "jelsz": r"jelsz[oa]",
    "slaptazod": r"slaptazod",
    "sifre": r"(?:^|_)sifre(?:si|niz|m)?(?![a-z])",
    "pasahitz": r"pasahitz",
    "khau": r"(?:^|_)mat_?khau(?![a-z])",
    "sandi": r"(?:^|_)kata_?sandi(?![a-z])",
    "laluan": r"kata_?laluan",
    **{word: re.escape(word) for word in _FOREIGN},
}


def _any_of_words(words: Iterable[str]) -> str:
    """A pattern for one of these words that is several times faster than `a|b|c`, because it reads no letter twice."""
    ends: dict[str, list[str]] = {}
    for word in words:
        ends.setdefault(word[:1], []).append(word[1:])
    if "" in ends:
        return ""
    found = [re.escape(first) + _any_of_words(rest) for first, rest in ends.items()]
    return found[0] if len(found) == 1 else f"(?:{'|'.join(found)})"


#: Names may be written with letters, or bytes of UTF-8, as numbers.
_ESCAPES = re.compile(r"\\[ux][0-9a-f]|%[c-e][0-9a-f]%")
_ROOTS = re.compile(_any_of_words(_SECRET_NAMES))


@cache
def _pattern(root: str) -> re.Pattern[str]:
    return re.compile(_SECRET_NAMES[root])


#: Names that are not secret because of the word before: `pad_token` and `cost_per_token` belong to language models.
_TOKEN_NAME = re.compile(
    r"(?:^|([^\W_]{1,20})_)(?:token(?:_?v?\d{1,4}|_value|_str(?:ing)?)?|cookies?(?:_(?:jar|header|value|string))?)$"
)
_HARMLESS = re.compile(
    r"pad(?:ding)?|[besu]os|eo[dt]|sot|unk(?:nown)?|mask(?:ed)?|cls|class|sep(?:arator)?|stop|next|new|last|first|prev"
    r"|previous|current|image|img|audio|video|visual|vision|speech|start|end|begin|prefix|suffix|special|per|max|min|num|n"
    r"|total|use|add|input|output|prompt|target|query|register|text|word|char|sub|subword|blank|control|placeholder"
    r"|trigger|draft|speculative|vocab|system|assistant|tool|think|thinking|timestep|dist|distillation|accept|allow"
    r"|enable|has|is|init|initializer|instance|modifier|concept|style|subject|language|lang|speaker|task|delimiter"
    r"|boundary|newline|space|whitespace|oov|fim|go|decode|decoder|encoder|memory|latent|patch|frame|segment|noise|cond"
    r"|keep|kept|drop|dropped|prune|pruned|merge|merged|label|answer|question|global|local|pool|pooling|pooled|summary"
    r"|reward|action|state|goal|step|entity|relation|head|tail|random|dummy|unused|reserved|sentence|document|passage|title"
    r"|context|yes|no|true|false|single|multi|one|zero|top|best|time|type|null|empty|common|rare|known|seen|unseen|ignored?"
    r"|curr|inner|outer|opening|closing|page|pagination|continuation|quote|source|src|tgt"
)
#: The last word of names that only describe a secret: its length, its file, the class that uses it, how a model is
#: trained on it.
_PROPERTY = re.compile(
    r"[a-z]_(?:dims?|sizes?|len|lengths?|counts?|levels?|strengths?|scores?|entropy|columns?|cols?|fields?|datasets?"
    r"|types?|kinds?|models?|classifiers?|detectors?|estimators?|generators?|encoders?|embeddings?|hashers?|validators?"
    r"|helpers?|providers?|policy|policies|sharing|required|enabled|rates?|ratios?|probs?|weights?|loss|losses|dropout"
    r"|thresholds?|idx|index|indices|position|manager|paths?|files?|filename|dirs?|folders?|attempts?|tries|retries|guesses"
    r"|guesser|features?|bits|class|classes|labels?|task|tasks|corpus|corpora|vocab|vocabulary|charset|alphabet|regex|pattern"
    r"|age|days|hours|minutes|seconds|expiry|expires_at|ttl|lifetime|rounds|iterations|algo|algorithm|versions?|urls?|uris?|endpoints?"
    r"|arns?|names?|envs?|env_var|variable|used|usage|acc|accuracy|f1|auc|precision|recall"
    r"|error|errors|lr|epochs?|batch|hidden|units|layers?|heads?|blocks?|channels|experiments?|benchmarks?|optimizer"
    r"|scheduler|format|strategy|backend|detection|prediction|classification|estimation|generation|cracking|guessing)"
    r"(?:_?v?\d{1,3})?$|^(?:n|num|number_of)_[a-z_]*s$"
)
#: Endings that distinguish several secrets: `db_pass_prod`, `openai_key_2`. But `pass_1` is a rate.
_WHICH = re.compile(
    r"(?:_(?:prod(?:uction)?|dev|staging|live|sandbox|backup|primary|secondary|b64|base64|plain(?:text)?|encrypted|encoded)"
    r"|(?<!\Apass)(?<!\Apw)_?v?\d{1,3})+\Z"
)
_BOUNDARY = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[-.\s/:'\"()\[\],]+")
#: The endings of names whose value is secret even if it is a number. With other names of secrets, such as `pass` and
#: `secret`, a number is more likely a rate, a size or a count.
_NAME_OF_NUMBER = re.compile(
    r"(?:pass_?w(?:or)?d|pass_?wo?e?rt|pass_?ord|pass_?phrase|pass_?code|[a-z]_pass|passe|pwd|kenn_?w(?:ort|oert)|senha"
    r"|contrase(?:na|nia|nya)|wacht_?woord|salasana|kodeord|adgangskode|hasl[oa]|hesl[oa]|(?:api|access|private|encryption"
    rf"|secret|license|account|master|service|ssh)_?key|(?:client|api|app|shared|consumer)_secret|(?:{'|'.join(_FOREIGN)})\w{{0,3}})s?"
    r"(?:_?\d{1,3}|_value|_confirm(?:ation)?|_again)?$"
)
#: A number without quotes in a text; of more digits it may be a code.
_NUMBER_IN_TEXT = re.compile(r"[+\-]?(?:\d{1,5}|\d{0,20}\.\d{1,20}|\d{1,20}\.?\d{0,20}e[+\-]?\d{1,3})", re.IGNORECASE)
#: Of a longer name, only the end is checked.
_MAX_NAME = 500

#: The names of boolean types, also of NumPy.
_BOOLEANS = frozenset(["bool", "bool_"])

#: Increases when `choose_names` changes the names, so that callers can discard cached answers.
version = 0
_chosen: tuple[re.Pattern[str] | None, re.Pattern[str] | None] = (None, None)


def choose_names(secret: Iterable[str] = (), public: Iterable[str] = ()) -> None:
    """Choose more names that are secret, and names that are public although they look secret.

    Args:
        secret: names; `*` matches anything, and case does not matter.
        public: the same; they take precedence.
    """
    global _chosen, version
    chosen = (_any_of(secret), _any_of(public))
    if chosen != _chosen:
        _chosen = chosen
        version += 1
        is_secret_name.cache_clear()
        _clean.forget()


def _any_of(names: Iterable[str]) -> re.Pattern[str] | None:
    patterns = [translate(name.strip()) for name in names if name.strip()]
    return re.compile("|".join(patterns), re.IGNORECASE) if patterns else None


@lru_cache(maxsize=8192)
def is_secret_name(name: str) -> bool:
    """Whether a value with this name is a secret.

    >>> is_secret_name("db_password"), is_secret_name("X-Api-Key"), is_secret_name("max_tokens")
    (True, True, False)
    """
    secret, public = _chosen
    if public is not None and public.match(name):
        return False
    if secret is not None and secret.match(name) is not None:
        return True
    words = _words_of(name)
    if words is None or _PROPERTY.search(words):
        return False
    small = fold(name[-_MAX_NAME:]).lower()
    return any(map(_is_well_known, {words, small})) or any(map(_is_token, {words, small}))


def unescaped(name: str) -> str:
    """Decode a name whose letters are written as numbers."""
    if "\\" not in name and "%" not in name:
        return name
    name = _ESCAPED_LETTER.sub(lambda found: chr(int(found[1], 16)), name)
    return _ESCAPED_BYTES.sub(
        lambda found: bytes.fromhex(re.sub(r"\\+x|%", "", found[0])).decode("utf-8", "replace"), name
    )


def is_name_of_token(name: str) -> bool:
    """Whether a name is just `token`, `cookie` or similar, which may also be an ordinary word in a text.

    >>> is_name_of_token("token"), is_name_of_token("access_token")
    (True, False)
    """
    words = _words_of(name)
    return words is not None and not _is_well_known(words) and _is_token(words)


def may_name_a_secret(text: str) -> bool:
    """A quick check whether a text may contain the name of a secret. It may be wrong only if it returns True."""
    if _chosen[0] is not None:
        return True
    small = text.lower() if text.isascii() else fold(text).lower().replace(" ", "_")
    return _ROOTS.search(small) is not None or _ESCAPES.search(small) is not None


def _words_of(name: str) -> str | None:
    """A name in lower case with `_` between its words; None if no secret has such a name."""
    name = fold(unescaped(name[-_MAX_NAME:]))
    small = name.lower()
    words = small if small == name and name.isidentifier() else _BOUNDARY.sub("_", name).lower().strip("_")
    words = _WHICH.sub("", words)
    return words if _ROOTS.search(words) or _ROOTS.search(small) else None


def _is_well_known(words: str) -> bool:
    return any(_pattern(root).search(words) for root in set(_ROOTS.findall(words)))


def _is_token(words: str) -> bool:
    found = _TOKEN_NAME.search(words) if "token" in words or "cookie" in words else None
    return found is not None and (found[1] is None or _HARMLESS.fullmatch(found[1]) is None)


def is_secret(name: str, value: object) -> bool:
    """Whether this value is a secret if it has this name.

    None, booleans and numbers are no secrets, except integers with a name that clearly means a password, a passcode or
    a key. Names from `choose_names` hide any value.

    >>> is_secret("token", "abc"), is_secret("token", 3), is_secret("pass", 0.5), is_secret("pin_password", 3)
    (True, False, False, True)
    """
    if value is None or not is_secret_name(name):
        return False
    kind = type(value)
    if kind is str or not (issubclass(kind, Number) or kind.__name__ in _BOOLEANS):
        return True
    if _chosen[0] is not None and _chosen[0].match(name) is not None:
        return True
    return kind.__name__ not in _BOOLEANS and issubclass(kind, Integral) and _may_be_number(name)


def is_number(name: str, content: str) -> bool:
    """Whether a value in a text, without quotes, is a number that is no secret, see `is_secret`.

    >>> is_number("pass", "0.5"), is_number("password", "1234")
    (True, False)
    """
    return _NUMBER_IN_TEXT.fullmatch(content) is not None and not is_secret(name, 1 if content.isdigit() else 0.5)


def _may_be_number(name: str) -> bool:
    words = _words_of(name)
    return words is not None and _NAME_OF_NUMBER.search(words) is not None


def looks_random(content: str, *, quoted: bool = True) -> bool:
    """Whether a text is more likely a secret than a word."""
    if len(content) < 8 or any(map(str.isspace, content)):
        return False
    mixed = content != content.lower() and content[1:] != content[1:].lower() and content != content.upper()
    return any(map(str.isdigit, content)) or (quoted and (mixed or len(content) >= 24))
