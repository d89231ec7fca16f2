"""What a row cost, averaged over seeds."""

from __future__ import annotations

from collections.abc import Sequence

from conrec.costs import RowCosts

__all__ = ["mean_costs"]


def mean_costs(costs: Sequence[RowCosts]) -> dict[str, float | int | None]:
    """Means over seeds of what each run measured.

    Args:
        costs: of one row, at least one.

    Returns:
        ``train_seconds``; ``seconds_per_1000``, to rank the catalogue for one question each of 1,000 users;
        ``parameters``, None where the model does not say; ``threads`` and ``questions`` of the first run.

    >>> mean_costs([RowCosts(1.0, 2.0, 500, 7, 1), RowCosts(3.0, 4.0, 500, 7, 1)])["seconds_per_1000"]
    6.0
    """
    known = [one.parameters for one in costs if one.parameters is not None]
    return {
        "train_seconds": sum(one.train_seconds for one in costs) / len(costs),
        "seconds_per_1000": sum(one.predict_seconds * 1000 / max(1, one.questions) for one in costs) / len(costs),
        "parameters": sum(known) / len(known) if known else None,
        "threads": costs[0].threads,
        "questions": costs[0].questions,
    }
