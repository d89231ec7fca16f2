"""Figures and tables of the training study, from the values of each anchor that its results hold."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from benchmarks.studies.training_arms import FORGETTING, GROUPS, Group, Line

from conrec.evaluation.significance import Bootstrap

__all__ = ["CHOICES", "METRICS", "Cell", "cell", "decoded", "encoded", "lines_of", "table"]

METRICS = ("hr@20", "fhr@20", "luf@20", "lif@20", "candidate_accuracy")
CHOICES = "four_way"
"""Accuracy on the held-out choices of item-level alignment."""
RESAMPLES = 2000


def encoded(values: np.ndarray) -> str:
    """Values 0, 1/n (n from 1 to 9) and NaN as one character each: 0, n and a dash.

    >>> encoded(np.array([0.0, 1.0, 0.5, np.nan]))
    '012-'
    """
    shares = np.where(np.isnan(values) | (values == 0), 1.0, values)
    number = np.rint(1 / shares).astype(np.int64)
    if (np.abs(number * shares - 1) > 1e-9).any() or (number > 9).any():
        raise ValueError("holds values that are neither 0 nor 1/n")
    signs = np.where(np.isnan(values), "-", np.where(values == 0, "0", number.astype(str)))
    return "".join(signs.tolist())


def decoded(text: str) -> np.ndarray:
    """What `encoded` wrote, float64.

    >>> decoded("012-").tolist()
    [0.0, 1.0, 0.5, nan]
    """
    value = {"-": np.nan, "0": 0.0, **{str(n): 1 / n for n in range(1, 10)}}
    return np.asarray([value[one] for one in text], dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Cell:
    """A figure: mean over anchors and seeds with its interval over users, and the difference to the reference.

    Attributes:
        value, low, high: the figure.
        by_seed: of each seed.
        less: value, low and high of it less that of the reference, on the seeds that both have; None: it is the
            reference, or they share none.
    """

    value: float
    low: float
    high: float
    by_seed: tuple[float, ...]
    less: tuple[float, float, float] | None


def cell(found: Mapping[str, Any], line: Line, metric: str, reference: Line) -> Cell | None:
    """One figure of a line of a table; None where it was not measured."""
    own, other = (_values(found, one, metric) for one in (line, reference))
    if not own:
        return None
    users = _users(found, metric, list(own))
    bootstrap = Bootstrap.over(users, RESAMPLES, 0)
    figure = bootstrap.figures(np.concatenate(list(own.values()))[:, None])[0]
    if figure is None:
        return None
    both = [seed for seed in own if seed in other]
    less = None
    if line != reference and both:
        shared = Bootstrap.over(_users(found, metric, both), RESAMPLES, 0)
        first, second = (np.concatenate([values[seed] for seed in both])[:, None] for values in (own, other))
        compared = shared.compare(first, second)[0]
        less = (compared.difference, compared.low, compared.high) if compared else None
    by_seed = tuple(float(np.nanmean(values)) for values in own.values())
    return Cell(figure.value, figure.low, figure.high, by_seed, less)


def _values(found: Mapping[str, Any], line: Line, metric: str) -> dict[str, np.ndarray]:
    """Values of a line by seed."""
    seeds = found["arms"].get(line.arm, {"seeds": {}})["seeds"]
    rows = {seed: one["rows"].get(line.row, {}) for seed, one in seeds.items()}
    wanted = seeds if line.seeds is None else line.seeds
    return {seed: decoded(row[metric]) for seed, row in sorted(rows.items()) if metric in row and seed in wanted}


def lines_of(found: Mapping[str, Any], group: Group) -> list[Line]:
    """The lines of a group that were measured; the reference once more for fewer seeds, where lines have no more.

    So each line stands beside the reference on the same seeds.
    """
    seeds = {line: tuple(_values(found, line, "hr@20")) for line in group.lines}
    shown = [line for line in group.lines if seeds[line]]
    if group.reference not in shown:
        return shown
    whole = seeds[group.reference]
    fewer = sorted({one for one in seeds.values() if one and set(one) < set(whole)}, key=len, reverse=True)
    place = shown.index(group.reference) + 1
    for one in fewer:
        word = "seed" if len(one) == 1 else "seeds"
        label = f"{group.reference.label}, {word} {' and '.join(one)} alone"
        shown.insert(place, replace(group.reference, label=label, seeds=one))
        place += 1
    return shown


def _users(found: Mapping[str, Any], metric: str, seeds: Iterable[str]) -> np.ndarray:
    """The user of each value, seed after seed."""
    if metric == CHOICES:
        return np.concatenate([np.asarray(found["choice_users"][seed]) for seed in seeds])
    return np.concatenate([np.asarray(found["users"]) for _ in seeds])


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """Markdown of some results: one table a group and set."""
    lines: list[str] = []
    for found in results:
        for group in GROUPS:
            shown = lines_of(found, group)
            if len({line.arm for line in shown}) > 1:
                title = f"**{group.title}** ({found['study'].split('/')[1]})"
                lines += ["", title, "", *_rows(found, shown, group.reference)]
        lines += _forgetting(found)
    return "\n".join(lines)


def _rows(found: Mapping[str, Any], shown: Sequence[Line], reference: Line) -> list[str]:
    heads = ("HR@20", "FHR@20", "LUF@20", "LIF@20", "candidate accuracy", "four-way accuracy")
    lines = [f"| | {' | '.join(heads)} | items in lists | seeds |", "|---|" + "---|" * (len(heads) + 2)]
    for line in shown:
        cells = [_text(cell(found, line, metric, reference)) for metric in (*METRICS, CHOICES)]
        seeds = [found["arms"][line.arm]["seeds"][seed] for seed in _values(found, line, "hr@20")]
        items = statistics.fmean(one["rows"][line.row]["items_in_lists"] for one in seeds)
        lines.append(f"| {line.label} | {' | '.join(cells)} | {items:.0f} | {len(seeds)} |")
    return lines


def _text(own: Cell | None) -> str:
    """A figure, its interval, and where its difference to the reference is sure, which way."""
    if own is None:
        return ""
    mark = ""
    if own.less and (own.less[1] > 0 or own.less[2] < 0):
        mark = " ▲" if own.less[0] > 0 else " ▼"
    return f"{own.value:.3f} [{own.low:.3f}, {own.high:.3f}]{mark}"


def _forgetting(found: Mapping[str, Any]) -> list[str]:
    """The paper's Table 3: accuracy on the held-out choices, and the share of it that is forgotten."""
    start = cell(found, FORGETTING[0], CHOICES, FORGETTING[0])
    if start is None:
        return []
    lines = ["", f"**Forgetting** ({found['study'].split('/')[1]})", ""]
    lines += ["| | four-way accuracy | forgotten | seeds |", "|---|---|---|---|"]
    for line in FORGETTING:
        own = cell(found, line, CHOICES, FORGETTING[0])
        if own is not None:
            lost = "" if line == FORGETTING[0] else f"{1 - own.value / start.value:.1%}"
            lines.append(f"| {line.label} | {_text(own)} | {lost} | {len(own.by_seed)} |")
    return lines
