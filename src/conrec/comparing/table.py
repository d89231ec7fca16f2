"""The table of all rows over several seeds, made from the files of their runs alone.

Writes ``OUT/table.json`` and ``OUT/table.md``. No row is missing: one that cannot run on the data, or has not run yet,
stands there with the reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from conrec.artefacts import write_json, write_text
from conrec.comparing.answers import has_answers
from conrec.comparing.costs import mean_costs
from conrec.comparing.figures import differences, figures, read_seeds
from conrec.comparing.listing import markdown
from conrec.comparing.origin import origin
from conrec.comparing.seeds import configs_of, seed_folder, seeds_in
from conrec.config import Config
from conrec.costs import read_costs
from conrec.errors import ArtefactError, ConfigError, did_you_mean
from conrec.evaluation.predictions import why_unranked
from conrec.pipeline import skipped
from conrec.rows import REFERENCE, rows_of

__all__ = ["TABLE", "make_table"]

TABLE = "table.json"


def make_table(out: Path, seeds: Sequence[int] | None = None, reference: str | None = None) -> dict[str, Any]:
    """Compute, write and return the table of a folder of runs.

    Args:
        out: folder with ``seed-0``, ``seed-1``, …
        seeds: whose runs are averaged; None: all that are there.
        reference: row with which every other one is compared; None: CoNRec where it is a row, else the first row.

    Returns:
        What ``OUT/table.json`` holds: ``data``, ``seeds``, ``top_k``, ``anchors``, ``users``, ``reference`` and
        ``rows``; of each row ``metrics`` (`conrec.comparing.figures.figures`), ``difference`` to the reference,
        ``costs``, ``settings`` and ``unranked`` (why it ranks nothing, else null), or else ``reason``.

    Raises:
        ArtefactError: the runs are not of one table, a file is damaged, or no row has answers in all of them.
        ConfigError: the reference is no row that has answers.
    """
    chosen = tuple(seeds) if seeds is not None else seeds_in(out)
    configs = configs_of(out, chosen)
    config, folders = configs[0], [seed_folder(out, seed) for seed in chosen]
    names = rows_of(config)
    reasons = {row: why for row in names if (why := _reason(folders, row))}
    answered = read_seeds(folders, configs, [row for row in names if row not in reasons])
    if not answered.values:
        raise ArtefactError(
            "no row has answers in the run of every seed",
            where=str(out),
            mend="Give the command of `conrec baselines run` again: it continues.",
        )
    other = _reference(reference, list(answered.values))
    bootstrap = answered.bootstrap(config.evaluation.bootstraps)
    rows: dict[str, Any] = {}
    for row in names:
        if row not in answered.values:
            rows[row] = {"reason": reasons.get(row) or _unfinished(folders, configs, row)}
            continue
        values = answered.values[row]
        costs = [cost for folder in folders if (cost := read_costs(folder, row)) is not None]
        against = differences(values, answered.values[other], bootstrap) if row != other else {}
        rows[row] = {
            "metrics": figures(values, bootstrap),
            "difference": against,
            "costs": mean_costs(costs) if costs else None,
            "settings": origin(config, row),
            "unranked": why_unranked(folders[0] / "predictions" / f"{row}.parquet"),
        }
    table = {
        "data": config.data.source,
        "seeds": list(chosen),
        "top_k": config.evaluation.top_k,
        "anchors": len(answered.users),
        "users": bootstrap.n_users,
        "reference": other,
        "rows": rows,
    }
    write_json(out / TABLE, table)
    write_text(out / "table.md", markdown(table))
    return table


def _reference(asked: str | None, answered: Sequence[str]) -> str:
    """The row that every other one is compared with."""
    if asked is None:
        return REFERENCE if REFERENCE in answered else answered[0]
    if asked not in answered:
        raise ConfigError(
            f"there is no row {asked!r} with answers", where="--reference", mend=did_you_mean(asked, answered)
        )
    return asked


def _reason(folders: Sequence[Path], row: str) -> str:
    """Why a row cannot run on this data, as its training stage wrote it; empty where it can."""
    found = (skipped(folder / "models" / f"{row}.train.json") for folder in folders)
    return next((why for why in found if why), "")


def _unfinished(folders: Sequence[Path], configs: Sequence[Config], row: str) -> str:
    """The runs without a row's answers, in words."""
    runs = zip(folders, configs, strict=True)
    without = [folder.name for folder, config in runs if not has_answers(folder, config, row)]
    return f"has no answers yet in {', '.join(without)}"
