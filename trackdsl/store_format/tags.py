"""Names that delivery writes to MLflow and programs read: tags of models, paths of long texts."""

from __future__ import annotations

from trackdsl.store_format.limits import fit_path

#: The folder in a run's artifacts for whole texts that are too long for MLflow's fields.
OVERFLOW = "trackdsl"
#: The tag of a logged model: the key that it was recorded with.
MODEL_KEY = "trackdsl.model"
#: The tag of a logged model: the handler that reads it.
MODEL_HANDLER = "trackdsl.model.handler"
#: The tag of a logged model: the hash of its files.
MODEL_SHA256 = "trackdsl.model.sha256"


def path_of_text(kind: str, name: str) -> str:
    """The artifact path of a parameter's or a tag's whole text, of which MLflow's field holds a part.

    >>> path_of_text("params", "prompt")
    'trackdsl/params/prompt.txt'
    """
    return f"{OVERFLOW}/{fit_path(f'{kind}/{name}.txt')}"
