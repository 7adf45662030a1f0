"""Bytes → a file with these bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trackdsl._core.redaction import mask_text
from trackdsl.handlers._handler import Handler, Scalar

#: A longer value is not searched for secrets.
_MAX_TEXT = 16 << 20
#: The digest of a longer value covers this many bytes.
_MAX_DIGESTED = 1 << 19
_MAX_SECRET = 4096


class _Binary(Handler):
    suffix = ".bin"

    def summary(self, value: Any) -> Scalar:
        return f"{type(value).__name__} of {len(value)}, digest {_digest_of(value)}"

    def write(self, value: Any, path: Path) -> None:
        path.write_bytes(masked(value))

    def read(self, path: Path) -> bytes:
        return path.read_bytes()


def _digest_of(value: Any) -> str:
    """Eight hexadecimal digits that are the same for equal bytes.

    For a long value, they cover only the beginning and the end.
    """
    import xxhash

    # A short value may be a password. It is masked first, because a digest would confirm a correct guess.
    plain = memoryview(value if len(value) > _MAX_SECRET else masked(value))
    plain = plain.cast("B") if plain.c_contiguous else memoryview(plain.tobytes())
    digest = xxhash.xxh3_64(b"%d" % plain.nbytes)
    if plain.nbytes <= _MAX_DIGESTED:
        digest.update(plain)
    else:
        digest.update(plain[: _MAX_DIGESTED // 2])
        digest.update(plain[-_MAX_DIGESTED // 2 :])
    return digest.hexdigest()[:8]


def masked(value: Any) -> Any:
    """Bytes with secrets masked if they are text; the same object if there are no secrets."""
    if memoryview(value).nbytes > _MAX_TEXT:
        return value
    try:
        text = bytes(value).decode("utf-8")
    except UnicodeDecodeError:
        return value
    without = mask_text(text)
    return value if without == text else without.encode("utf-8")


handler = _Binary()
