"""Masking: what looks like a secret never reaches the journal.

A value is masked by the name it stands under (`password`, `api_key`, …; `choose_names` changes which), by its type, or
by its shape (credentials inside a URL, the documented prefixes of well-known tokens). Names are looked for in
structures and in texts: JSON, YAML, queries, command lines, pairs. Values that are masked in structures are remembered,
so that they are taken out of whatever else the same process records.
"""

from trackdsl._core.redaction._clean import names as clean_names
from trackdsl._core.redaction._items import mask_entry, mask_items
from trackdsl._core.redaction._likely import is_likely
from trackdsl._core.redaction._masking import mask_name, mask_prose, mask_text
from trackdsl._core.redaction._memory import forget, remember
from trackdsl._core.redaction._names import choose_names, is_secret, is_secret_name
from trackdsl._core.redaction._shapes import MASK

__all__ = [
    "MASK",
    "choose_names",
    "clean_names",
    "forget",
    "is_likely",
    "is_secret",
    "is_secret_name",
    "mask_entry",
    "mask_items",
    "mask_name",
    "mask_prose",
    "mask_text",
    "remember",
]
