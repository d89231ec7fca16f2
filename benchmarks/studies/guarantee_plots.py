"""The tables and plots of the study of the guarantee (`benchmarks.studies.guarantee`), from its results.

    python -m benchmarks.studies.guarantee_plots benchmarks/results/guarantee.json [--images docs/images]

Prints the tables in Markdown. Each plot is written twice, for light and for dark pages.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common.drawings import write_drawing
from benchmarks.studies.guarantee_draws import BOUNDS

from conrec.artefacts import read_json
from conrec.report.canvas import Figure, Palette, draw

Result = Mapping[str, Any]
GUARANTEES = ("expectation", "probability")
TITLES = {"movietweetings": "MovieTweetings", "board-games": "board games", "ml-100k": "MovieLens-100K"}


def paint_splits(result: Result) -> Callable[[Figure, Palette], None]:
    """Rate over bound on the other half of the users, over splits, and on the later period; rate "user", whole sets."""
    runs = result["runs"]
    models = list(dict.fromkeys(model for run in runs.values() for model in run["models"]))
    columns = [(name, max(_sizes(runs[name]))) for name in runs]

    def paint(figure: Figure, palette: Palette) -> None:
        grid: Any = figure.subplots(len(GUARANTEES), len(columns), sharex=True, sharey=True, squeeze=False)
        for column, (name, size) in enumerate(columns):
            for line, guarantee in enumerate(GUARANTEES):
                axes = grid[line][column]
                axes.axhline(1, color=palette.quiet, ls="--", lw=1)
                for model, found in runs[name]["models"].items():
                    place = models.index(model)
                    colour, shift = palette.series[place], (place - (len(models) - 1) / 2) * 0.16
                    rows = [one for one in found["splits"] if one["predict_set"] == size]
                    _splits(axes, _rows(rows, "user", guarantee), colour, shift, model)
                    after = [one for one in found["reach"] if one["predict_set"] == size and one["rank_weight"] < 1]
                    _later(axes, _rows(after, "user", guarantee), colour, shift + 0.06)
                axes.set_xticks(range(len(BOUNDS)), labels=[f"{bound:.0%}" for bound in BOUNDS])
                if line == 0:
                    axes.set_title(f"{TITLES.get(name, name)}, {size} predictions")
                else:
                    axes.set_xlabel("bound")
                if column == 0:
                    axes.set_ylabel(f"{guarantee}\nrate / bound")
        legend = {
            label: one for axes in grid.flat for one, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(list(legend.values()), list(legend), loc="outside lower center", ncols=len(legend))

    return paint


def _sizes(run: Mapping[str, Any]) -> list[int]:
    """Sizes of predict sets that the splits were made with."""
    return list(dict.fromkeys(one["predict_set"] for found in run["models"].values() for one in found["splits"]))


def _rows(found: Iterable[Mapping[str, Any]], rate: str, guarantee: str) -> list[Mapping[str, Any]]:
    return [one for one in found if one["rate"] == rate and one["guarantee"] == guarantee]


def _splits(axes: Any, rows: Sequence[Mapping[str, Any]], colour: str, shift: float, label: str) -> None:
    places = [at + shift for at in range(len(rows))]
    low, high, mean = ([one[key] / one["bound"] for one in rows] for key in ("low", "high", "mean"))
    axes.vlines(places, low, high, colors=colour, lw=1.6)
    axes.plot(places, mean, "o", ls="none", color=colour, ms=4.5, label=label)


def _later(axes: Any, rows: Sequence[Mapping[str, Any]], colour: str, shift: float) -> None:
    shown = [(at + shift, one) for at, one in enumerate(rows) if not one["keeps_everything"]]
    places = [at for at, _ in shown]
    low, high, value = ([one[key] / one["bound"] for _, one in shown] for key in ("low", "high", "value"))
    axes.vlines(places, low, high, colors=colour, lw=0.8, linestyles=":")
    axes.plot(places, value, "x", ls="none", color=colour, ms=5)


def paint_simulation(result: Result) -> Callable[[Figure, Palette], None]:
    """Mean true rate over bound, and in how many draws it exceeds the bound; rate "user"."""
    kinds = (*GUARANTEES, "pairs taken for exchangeable")

    def paint(figure: Figure, palette: Palette) -> None:
        left, right = figure.subplots(1, 2)
        left.axhline(1, color=palette.quiet, ls="--", lw=1)
        right.axhline(1 - result["confidence"], color=palette.quiet, ls="--", lw=1)
        for style, (users, found) in zip(("o", "^"), result["simulation"].items(), strict=True):
            for place, kind in enumerate(kinds):
                rows = _rows(found["rules"], "user", kind)
                places = [at + 0.12 * (place - 1) + (0.04 if style == "^" else -0.04) for at in range(len(rows))]
                colour = palette.series[place]
                label = f"{kind}, {users} users"
                left.plot(places, [one["mean"] / one["bound"] for one in rows], style, color=colour, ms=5, label=label)
                right.plot(places, [one["above"] for one in rows], style, color=colour, ms=5)
        for axes in (left, right):
            axes.set_xticks(range(len(BOUNDS)), labels=[f"{bound:.0%}" for bound in BOUNDS])
            axes.set_xlabel("bound")
            axes.set_ylim(bottom=0)
        left.set_title("mean true rate / bound")
        right.set_title("share of draws with a true rate above the bound")
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2)

    return paint


def tables(result: Result) -> str:
    """Markdown: what there is, the splits, by category, the later period, the simulation, the tests."""
    parts = [
        *_likes(result),
        *_split_table(result),
        *_category_table(result),
        *_later_table(result),
        *_reach_table(result),
        *_weighing_table(result),
        *_stale_table(result),
    ]
    return "\n".join([*parts, *_simulation_table(result), *_tightness_table(result)])


def _table(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return ["", f"**{title}**", "", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *lines]


def _models(result: Result) -> Iterable[tuple[str, str, Mapping[str, Any]]]:
    for name, run in result["runs"].items():
        for model, found in run["models"].items():
            yield TITLES.get(name, name), model, found


def _likes(result: Result) -> list[str]:
    heads = ("log", "model", "users with a like", "likes", "most of a user", "likes predicted", "dislikes predicted")
    rows = []
    for name, model, found in _models(result):
        both = found["both"]
        counts = (f"{both[key]:,}" for key in ("users", "liked", "most_of_a_user"))
        shares = (f"{both[key]:.1%}" for key in ("liked_that_are_predicted", "disliked_that_are_predicted"))
        rows.append((name, model, *counts, *shares))
    return _table("What there is, both periods", heads, rows)


def _split_table(result: Result) -> list[str]:
    heads = (
        "log", "model", "predict set", "rate", "bound", "expectation: mean on the other half", "caught",
        "keeps everything", "probability: all users above the bound", "other half above", "mean", "caught",
    )  # fmt: skip
    rows = []
    for name, model, found in _models(result):
        for rate in ("user", "pair"):
            for first, second in zip(*(_rows(found["splits"], rate, one) for one in GUARANTEES), strict=True):
                rows.append(
                    (
                        name, model, str(first["predict_set"]), rate, f"{first['bound']:.0%}",
                        f"{first['mean']:.4f} ± {first['error']:.4f}", f"{first['caught']:.1%}",
                        f"{first['keeps_everything']:.0%}",
                        f"{second['pool_above']:.1%}", f"{second['other_half_above']:.1%}",
                        f"{second['mean']:.4f}", f"{second['caught']:.1%}",
                    )
                )  # fmt: skip
    return _table("Random splits", heads, rows)


def _category_table(result: Result) -> list[str]:
    heads = (
        "log", "model", "guarantee", "bound", "segments", "of them can drop", "highest mean rate of a segment",
        "highest share of splits above", "rate over all items", "caught",
    )  # fmt: skip
    rows = []
    for name, model, found in _models(result):
        for one in found["by_category"]:
            whole = one["all_items"]
            rows.append(
                (
                    name, model, one["guarantee"], f"{one['bound']:.0%}", str(one["categories"]), f"{one['able']:.1f}",
                    f"{one['highest_mean']:.4f} ± {one['error_of_highest']:.4f}", f"{one['highest_pool_above']:.1%}",
                    f"{whole['mean']:.4f}", f"{whole['caught']:.1%}",
                )
            )  # fmt: skip
    return _table("Thresholds by category, rate “user”", heads, rows)


def _later_table(result: Result) -> list[str]:
    heads = ("log", "model", "rate", "guarantee", "bound", "threshold", "validation", "test period", "caught")
    rows = []
    for name, model, found in _models(result):
        for one in found["later"]:
            if one["keeps_everything"]:
                continue
            value = f"{one['value']:.4f} [{one['low']:.4f}, {one['high']:.4f}]"
            above = " **above**" if one["low"] > one["bound"] else ""
            rows.append(
                (
                    name, model, one["rate"], one["guarantee"], f"{one['bound']:.0%}", f"{one['threshold']:.4f}",
                    f"{one['validation']:.4f}", value + above, f"{one['caught']:.1%}",
                )
            )  # fmt: skip
    return _table("The later period, where something can be dropped", heads, rows)


def _reach_table(result: Result) -> list[str]:
    heads = ("log", "model", "predict set", "rank weight", *(f"bound {bound:.0%}" for bound in BOUNDS))
    rows = []
    for name, model, found in _models(result):
        kinds = dict.fromkeys((one["predict_set"], one["rank_weight"]) for one in found["reach"])
        for size, weight in kinds:
            own = [one for one in found["reach"] if (one["predict_set"], one["rank_weight"]) == (size, weight)]
            cells = ("–" if one["keeps_everything"] else f"{one['caught']:.1%} for {one['value']:.1%}" for one in own)
            rows.append((name, model, str(size), f"{weight:g}", *cells))
    return _table("Smaller sets and weighted predictions: dislikes caught for likes lost, test period", heads, rows)


def _weighing_table(result: Result) -> list[str]:
    heads = ("log", "model", "rank weight", "score weight", *(f"bound {bound:.0%}" for bound in BOUNDS))
    rows = []
    for name, model, found in _models(result):
        for ranks, scores in dict.fromkeys((one["rank_weight"], one["score_weight"]) for one in found["weighings"]):
            own = [o for o in found["weighings"] if (o["rank_weight"], o["score_weight"]) == (ranks, scores)]
            cells = ("–" if one["keeps_everything"] else f"{one['caught']:.3f}" for one in own)
            rows.append((name, model, f"{ranks:g}", f"{scores:g}", *cells))
    return _table("Weights: dislikes caught, validation period", heads, rows)


def _stale_table(result: Result) -> list[str]:
    heads = ("log", "model", "anchors", "median age in days", "bound", "fresh: caught for lost", "stale")
    rows = []
    for name, model, found in _models(result):
        for one in found["stale"]:
            if one["keeps_everything"] or not one["anchors"]:
                continue
            pairs = (f"{one[kind]['caught']:.1%} for {one[kind]['value']:.1%}" for kind in ("fresh", "stale"))
            rows.append(
                (name, model, f"{one['anchors']:,}", f"{one['median_days']:.1f}", f"{one['bound']:.0%}", *pairs)
            )
    return _table("Predictions of the anchor before, test period", heads, rows)


def _simulation_table(result: Result) -> list[str]:
    heads = ("users", "rate", "guarantee", "bound", "mean true rate", "draws above the bound")
    rows = []
    for users, found in result["simulation"].items():
        for one in found["rules"]:
            mean = f"{one['mean']:.4f} ± {one['error']:.4f}"
            rows.append((users, one["rate"], one["guarantee"], f"{one['bound']:.0%}", mean, f"{one['above']:.1%}"))
    return _table("Simulation", heads, rows)


def _tightness_table(result: Result) -> list[str]:
    heads = ("users", "bound", "true rate / bound", "ours passes", "Hoeffding-Bentkus", "Waudby-Smith-Ramdas, ordered")
    rows = []
    for one in result["tightness"]:
        shares = (f"{one[key]:.0%}" for key in ("ours", "hoeffding_bentkus", "waudby_smith_ramdas"))
        rows.append((f"{one['users']:,}", f"{one['bound']:.0%}", f"{one['true_rate_over_bound']:.1f}", *shares))
    return _table("Tests", heads, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--images", type=Path, help="folder for the plots; without it the tables alone")
    given = parser.parse_args()
    result = read_json(given.file)
    print(tables(result))
    if given.images is not None:
        for name, painter, height in (("splits", paint_splits, 5.0), ("simulation", paint_simulation, 3.4)):
            for path in write_drawing(draw(painter(result), height, "", ""), given.images, f"guarantee-{name}"):
                print(f"{path}: {path.stat().st_size / 1024:.0f} KB")


if __name__ == "__main__":
    main()
