"""Runs that newer executions of a notebook cell supersede, with all runs below them: queries leave them out."""

from __future__ import annotations

from trackdsl.query._grammar import quoted_key
from trackdsl.query._paged import PagedReader
from trackdsl.query._rows import Search
from trackdsl.store_format.tags import SUPERSEDED_TAG


def superseded_ids(reader: PagedReader, experiments: tuple[str, ...]) -> frozenset[str]:
    """MLflow's ids of the superseded runs of some experiments, and of all runs below them.

    Args:
        reader: reads the store.
        experiments: MLflow's ids.
    """
    replaced = list(reader.search(Search(experiments, f"tags.{quoted_key(SUPERSEDED_TAG)} != ''")))
    return frozenset({*(run.run_id for run in replaced), *reader.descendant_ids(replaced)})
