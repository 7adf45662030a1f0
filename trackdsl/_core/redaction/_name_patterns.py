"""The patterns of names of secrets. Data for `_names`.

Names are matched in lower case with `_` between their words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

from trackdsl._core.late_pattern import late_pattern
from trackdsl._core.redaction._letters import fold

#: Words for a password in languages with other scripts; `_` separates words.
_FOREIGN = fold(
    "парол|лозинка|пассворд|құпиясөз|密码|密碼|口令|密钥|密鑰|令牌|パスワード|合言葉|비밀번호|패스워드|암호|סיסמה|סיסמא"
    "|كلمة_المرور|كلمة_السر|كلمة_مرور|رمز_عبور|گذرواژه|κωδικος_προσβασης|συνθηματικο|รหัสผ่าน|पासवर्ड|পাসওয়ার্ড|գաղտնաբառ|პაროლი"
).split("|")

#: A text that every matching name contains → the pattern of those names.
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


#: A letter that is written as a number: a byte of UTF-8, or a code point of Unicode.
ESCAPES = re.compile(r"\\[ux][0-9a-f]|%[c-e][0-9a-f]%")
ROOTS = late_pattern(_any_of_words(_SECRET_NAMES))


@cache
def pattern_of(root: str) -> re.Pattern[str]:
    """The pattern of the names that contain a root."""
    return re.compile(_SECRET_NAMES[root])


#: Names of tokens and cookies. Group 1 is the word before `token` or `cookie`.
TOKEN_NAME = late_pattern(
    r"(?:^|([^\W_]{1,20})_)(?:token(?:_?v?\d{1,4}|_value|_str(?:ing)?)?|cookies?(?:_(?:jar|header|value|string))?)$"
)
#: Words before `token` that make a name public: `pad_token` and `cost_per_token` belong to language models.
HARMLESS_BEFORE_TOKEN = late_pattern(
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
PROPERTY = late_pattern(
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
DISTINGUISHING_END = late_pattern(
    r"(?:_(?:prod(?:uction)?|dev|staging|live|sandbox|backup|primary|secondary|b64|base64|plain(?:text)?|encrypted|encoded)"
    r"|(?<!\Apass)(?<!\Apw)_?v?\d{1,3})+\Z"
)
#: The boundary between two words of a name, such as `-`, or a change of case.
WORD_BOUNDARY = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[-.\s/:'\"()\[\],]+")
#: The endings of names whose value is secret even if it is a number. With other names of secrets, such as `pass` and
#: `secret`, a number is more likely a rate, a size or a count.
NAME_OF_NUMBER = late_pattern(
    r"(?:pass_?w(?:or)?d|pass_?wo?e?rt|pass_?ord|pass_?phrase|pass_?code|[a-z]_pass|passe|pwd|kenn_?w(?:ort|oert)|senha"
    r"|contrase(?:na|nia|nya)|wacht_?woord|salasana|kodeord|adgangskode|hasl[oa]|hesl[oa]|(?:api|access|private|encryption"
    rf"|secret|license|account|master|service|ssh)_?key|(?:client|api|app|shared|consumer)_secret|(?:{'|'.join(_FOREIGN)})\w{{0,3}})s?"
    r"(?:_?\d{1,3}|_value|_confirm(?:ation)?|_again)?$"
)
