"""Masking: values that look like secrets never reach the journal.

A value is masked because of its name (`password`, `api_key`, …; `choose_names` changes the names), its type or its
pattern (credentials inside a URL, the documented prefixes of well-known tokens). Names are searched for in structures
and in texts: JSON, YAML, queries, command lines, pairs. Masked values in structures are remembered, and masked again in
everything else that the same process records.
"""

from trackdsl._core.redaction._clean import names as clean_names
from trackdsl._core.redaction._items import mask_entry, mask_items
from trackdsl._core.redaction._likely import is_likely
from trackdsl._core.redaction._masking import mask_name, mask_prose, mask_text
from trackdsl._core.redaction._memory import forget, remember
from trackdsl._core.redaction._names import choose_names, choosing, is_secret, is_secret_name
from trackdsl._core.redaction._shapes import MASK

__all__ = [
    "MASK",
    "choose_names",
    "choosing",
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
