"""The names of tags that more than one module writes or reads, and the paths of long texts.

What belongs to the subject of another module is defined there: the fields of `trackdsl.call` in `call_tag.py`, the tag
of recorded files in `files_tag.py`, those of changes in `changes/stored.py`, and those that a journal needs in
`_core/events.py`.
"""

from __future__ import annotations

from trackdsl.store_format.limits import fit_path

#: MLflow's own tags.
PARENT_TAG = "mlflow.parentRunId"
RUN_NAME_TAG = "mlflow.runName"
NOTE_TAG = "mlflow.note.content"
USER_TAG = "mlflow.user"
SOURCE_NAME_TAG = "mlflow.source.name"
SOURCE_TYPE_TAG = "mlflow.source.type"
COMMIT_TAG = "mlflow.source.git.commit"
BRANCH_TAG = "mlflow.source.git.branch"
REPOSITORY_TAG = "mlflow.source.git.repoURL"

#: trackdsl's own id of a run, and the names from the root down to it.
ID_TAG = "trackdsl.id"
PATH_TAG = "trackdsl.path"
#: The parent of a run whose parent MLflow does not have.
MISSING_PARENT_TAG = "trackdsl.parent.missing"
#: The tag of a run that a newer execution of its notebook cell supersedes: the newer run. Empty if it counts again.
SUPERSEDED_TAG = "trackdsl.superseded_by"
#: The experiment that a run inside of another one names.
EXPERIMENT_TAG = "trackdsl.experiment"
#: How a run ended: the reason that `Run.end` got, and the exception.
ENDED_TAG = "trackdsl.ended"
EXCEPTION_TYPE_TAG = "trackdsl.exception.type"
EXCEPTION_MESSAGE_TAG = "trackdsl.exception.message"
TRACEBACK_TAG = "trackdsl.exception.traceback"
#: The processes of a launch, and the tasks of a cluster.
RANK_TAG = "trackdsl.rank"
LOCAL_RANK_TAG = "trackdsl.local_rank"
WORLD_SIZE_TAG = "trackdsl.world_size"
NODE_TAG = "trackdsl.node"
LAUNCH_TAG = "trackdsl.launch"
TASK_TAG = "trackdsl.task"
ATTEMPT_TAG = "trackdsl.attempt"
#: The beginnings of tags: of a name that the store does not take, a value that is in part elsewhere, and a parameter
#: that had another value before.
RENAMED = "trackdsl.renamed."
TRUNCATED = "trackdsl.truncated."
LATER_PARAM = "trackdsl.param.later."

#: The folder in a run's artifacts for whole texts that are too long for MLflow's fields.
OVERFLOW = "trackdsl"
#: The tag of a logged model: its name, where MLflow's differs.
MODEL_NAME = "trackdsl.model.name"
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
