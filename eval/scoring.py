"""The episodes of a run -> the content of its `results.json`, with what the tasks themselves say of them."""

from collections.abc import Mapping, Sequence
from typing import Any

from eval.overlap import Start, shared_starts
from eval.results import Record
from eval.summary import results
from eval.worlds import left_out, official_starts


def scored(
    records: Sequence[Record], starts: str, meta: Mapping[str, Any], retried: Sequence[Record] = ()
) -> dict[str, Any]:
    """See `eval.summary.results`.

    Args:
        records: every episode of the run.
        starts: `grid` or `random`; fresh starts of two tasks are never the same.
        meta: how the run was made.
        retried: attempts that went wrong and were run again.
    """
    own = [Start(record.task, record.setting, record.episode_id) for record in records]
    shared = shared_starts(own, official_starts) if starts == "grid" else {}
    return results(records, meta, left_out({record.variant for record in records}), shared, retried)
