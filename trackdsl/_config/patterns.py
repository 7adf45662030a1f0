"""How the setting `stages`, and options of `trackdsl run`, name functions."""

from __future__ import annotations

#: What a pattern may be, for messages.
FORMS = "package.module:function, package.module:train_* or package.module:Class.method"
_IN_FUNCTIONS = "_*?[]!-"


def is_pattern(text: str) -> bool:
    """Whether a text names functions.

    >>> is_pattern("churn.train:fit_*"), is_pattern("main"), is_pattern("churn.train.fit:")
    (True, True, False)
    """
    module, colon, functions = text.strip().rpartition(":")
    if colon and not all(part.isidentifier() for part in module.split(".")):
        return False
    return all(part and all(one.isalnum() or one in _IN_FUNCTIONS for one in part) for part in functions.split("."))
