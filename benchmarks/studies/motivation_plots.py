"""The tables and plots of the study of motivation (`benchmarks.studies.motivation`), from its results.

    python -m benchmarks.studies.motivation_plots benchmarks/results/motivation-*.json [--images docs/images]

Prints the tables in Markdown. Each plot is written twice, for light and for dark pages.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common.drawings import write_drawing
from benchmarks.studies.motivation import SETS, TARGETS, TOP, VARIANTS

from conrec.artefacts import read_json
from conrec.evaluation.studies import PAPER
from conrec.report.canvas import Figure, Palette, draw

KIND = dict.fromkeys(VARIANTS, "truth")
"""Which interests a log's main figures are about; those of real logs are `PROXY`."""
PROXY = "excess"
TITLES = {
    "simulator": "simulator (truth known)",
    "simulator-unsuppressed": "simulator, no suppression",
    "simulator-dense": "simulator, small catalogue",
    "movietweetings": "MovieTweetings (proxy)",
    "board-games": "board games (proxy)",
}
PAPER_NAMES = dict(zip(TARGETS, PAPER, strict=True))
Results = Mapping[str, Mapping[str, Any]]


def read(files: Sequence[Path]) -> Results:
    """The results by the name of the log, in the order of `SETS`."""
    found = {one["study"].partition("/")[2]: one for one in map(read_json, files)}
    return {name: found[name] for name in SETS if name in found}


def main_figures(name: str, result: Mapping[str, Any]) -> Mapping[str, Any]:
    """Coverage of the interests that a log's main figures are about."""
    found: Mapping[str, Any] = result["coverage"][KIND.get(name, PROXY)]
    return found


def paint_coverage(results: Results) -> Callable[[Figure, Palette], None]:
    """One column a log, one line of panels a measure; targets from top to bottom, other sets of their size beside."""
    measures = {"top 1": "covers the\ntop-1 interest", "top 4": "covers one\nof the top 4"}
    shown = {name: one for name, one in results.items() if name != "simulator-unsuppressed"}

    def paint(figure: Figure, palette: Palette) -> None:
        grid: Any = figure.subplots(len(measures), len(shown), sharex=True, sharey=True, squeeze=False)
        rows = range(len(TARGETS))
        for column, (name, result) in enumerate(shown.items()):
            covered = main_figures(name, result)
            for line, (measure, title) in enumerate(measures.items()):
                axes = grid[line][column]
                for shift, (other, colour, marker, label) in enumerate(
                    (
                        ("", palette.accent, "o", "the target"),
                        (", random", palette.quiet, "s", "random items, as many"),
                        (", most disliked", palette.series[0], "^", "most disliked items, as many"),
                    )
                ):
                    found = [covered[f"{target}{other}"][measure] for target in TARGETS]
                    _points(axes, found, [place + 0.2 * shift for place in rows], colour, marker, label)
                if name == "simulator":
                    paper = [PAPER[PAPER_NAMES[target]][measure.replace(" ", "_")] for target in TARGETS]
                    places = [place - 0.2 for place in rows]
                    axes.plot(paper, places, "D", c=palette.ink, ms=4, fillstyle="none", label="the paper's, on Taobao")
                _rows(axes, TARGETS)
                axes.set_xlim(0, 1)
                axes.set_xticks((0, 0.25, 0.5, 0.75, 1), labels=("0", "", "0.5", "", "1"))
                axes.set_title("" if line else TITLES[name])
                axes.set_ylabel("" if column else title)
        _legend(figure, grid[0][0])

    return paint


def paint_added(results: Results) -> Callable[[Figure, Palette], None]:
    """What the neighbours add to the future negatives: their own share of hits, and coverage beyond the larger size."""
    names = list(results)
    shares = (("neighbours", "o"), ("random", "s"), ("most disliked", "^"))
    gains = (
        ("future", "D", "than the future negatives"),
        ("future and random", "o", "than these and as many at random"),
    )

    def paint(figure: Figure, palette: Palette) -> None:
        left, right = figure.subplots(1, 2, sharey=True)
        covered = [main_figures(name, one) for name, one in results.items()]
        for shift, (kind, marker) in enumerate(shares):
            colour = (palette.accent, palette.quiet, palette.series[0])[shift]
            found = [one[f"added: {kind}"]["pure"] for one in covered]
            _points(left, found, [place + 0.2 * shift for place in range(len(names))], colour, marker, kind)
        for shift, (kind, marker, label) in enumerate(gains):
            colour = (palette.quiet, palette.accent)[shift]
            found = [one["differences"][f"GTS less {kind}"]["top 1"] for one in covered]
            _points(right, found, [place + 0.2 * shift for place in range(len(names))], colour, marker, label)
        right.axvline(0, color=palette.quiet, lw=1.2, zorder=1)
        for axes in (left, right):
            _rows(axes, [TITLES[name] for name in names])
            if axes.get_legend_handles_labels()[0]:
                axes.legend(loc="best", fontsize=8)
        left.set_xlim(left=0)
        left.set_title("items added to the future negatives:\nshare in one of the top 4")
        right.set_title("GTS covers the top-1 interest more often …")

    return paint


def _points(
    axes: Any,
    figures: Sequence[Mapping[str, float] | None],
    places: Sequence[float],
    colour: str,
    marker: str,
    label: str,
) -> None:
    """Values with their intervals, one a row; nothing where there is none."""
    there = [(one, place) for one, place in zip(figures, places, strict=True) if one is not None]
    if not there:
        return
    rows = [place for _, place in there]
    axes.hlines(rows, [one["low"] for one, _ in there], [one["high"] for one, _ in there], colors=colour, lw=1.6)
    axes.plot([one["value"] for one, _ in there], rows, marker, ls="none", color=colour, ms=4.5, label=label)


def _rows(axes: Any, labels: Sequence[str]) -> None:
    """Rows from top to bottom."""
    axes.set_yticks([place + 0.2 for place in range(len(labels))], labels=list(labels))
    axes.set_ylim(len(labels) - 0.3, -0.5)
    axes.grid(visible=False, axis="y")


def _legend(figure: Figure, axes: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))


def paint_again(results: Results) -> Callable[[Figure, Palette], None]:
    """How much more or less of a category is met after a reaction to it than before, as a share of before."""

    def paint(figure: Figure, palette: Palette) -> None:
        axes = figure.subplots()
        rows = range(len(results))
        kinds = (("dislike", palette.accent, "o"), ("like", palette.series[0], "^"))
        for shift, (what, colour, marker) in enumerate(kinds):
            found = [_relative(one["met_again"][what]) for one in results.values()]
            _points(axes, found, [place + 0.2 * shift for place in rows], colour, marker, f"a {what}")
        axes.axvline(0, color=palette.quiet, lw=1.2, zorder=1)
        _rows(axes, [TITLES[name] for name in results])
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:+.0%}".replace("-", "−").replace("+0%", "0%"))
        axes.legend(loc="best", fontsize=8)
        axes.set_title("what the user meets of a category after he reacted to it, against before")

    return paint


def _relative(met: Mapping[str, Any]) -> dict[str, float] | None:
    """The change and its interval, divided by the value before."""
    change, before = met["after less before"], met["before"]
    if change is None or not before["value"]:
        return None
    return {key: change[key] / before["value"] for key in ("value", "low", "high")}


PLOTS: Mapping[str, tuple[Callable[[Results], Callable[[Figure, Palette], None]], float]] = {
    "coverage": (paint_coverage, 5.0),
    "added": (paint_added, 3.4),
    "again": (paint_again, 2.6),
}
"""Painter and height in inches."""


def write_plots(results: Results, folder: Path) -> list[Path]:
    """Two SVG files a plot, ``motivation-NAME-light.svg`` and ``-dark.svg``."""
    written = []
    for name, (painter, height) in PLOTS.items():
        written += write_drawing(draw(painter(results), height, "", ""), folder, f"motivation-{name}")
    return written


def tables(results: Results) -> str:
    """Markdown: the logs, coverage under each kind of interest, what is met again, likes reversed."""
    heads = "positives for each negative | users without a negative | with fewer than 3 | anchors (users) | categories"
    parts = [
        "**Logs**",
        "",
        f"| log | events | users | {heads}, of an item |",
        "|---" * 8 + "|",
    ]
    for name, result in results.items():
        log = result["log"]
        parts.append(
            f"| {TITLES[name]} | {log['events']:,} | {log['users']:,} | {log['positives_per_negative']:.1f} | "
            f"{log['users_without_negatives']:.0%} | {log['users_with_fewer_than_3']:.0%} | "
            f"{result['anchors']:,} ({result['anchors_of']:,}) | "
            f"{result['categories']}, {result['categories_per_item']:.1f} |"
        )
    for kind in dict.fromkeys(kind for one in results.values() for kind in one["coverage"]):
        parts += [
            "",
            f"**Coverage, interests: {kind}**",
            "",
            "| log | set | items | top 1 | top 4 | of the four | items in the top 4 |",
            "|---" * 7 + "|",
        ]
        for name, result in results.items():
            covered = result["coverage"].get(kind, {})
            for one, found in covered.items():
                if one == "differences" or found["top 1"] is None:
                    continue
                cells = (_cell(found[measure]) for measure in ("top 1", "top 4", "of the four", "pure"))
                parts.append(f"| {TITLES[name]} | {one} | {found['mean_size']:.1f} | {' | '.join(cells)} |")
    parts += [
        "",
        "**Differences, main interests**",
        "",
        "| log | | top 1 | top 4 | items in the top 4 |",
        "|---" * 5 + "|",
    ]
    for name, result in results.items():
        for one, found in main_figures(name, result)["differences"].items():
            parts.append(
                f"| {TITLES[name]} | {one} | "
                + " | ".join(_cell(found[measure], signed=True) for measure in ("top 1", "top 4", "pure"))
                + " |"
            )
    parts += ["", "**Met again**", "", "| log | around a | before | after | after less before |", "|---" * 5 + "|"]
    for name, result in results.items():
        for what, found in result["met_again"].items():
            change = _cell(found["after less before"], signed=True)
            parts.append(f"| {TITLES[name]} | {what} | {_cell(found['before'])} | {_cell(found['after'])} | {change} |")
    columns = ("least liked", "own dislikes", "everybody's dislikes")
    parts += ["", "**Likes reversed**", "", f"| log | anchors | {' | '.join(columns)} |", "|---" * 5 + "|"]
    for name, result in results.items():
        found = result["reverse_of_likes"]
        cells = " | ".join(_cell(found[one]) for one in columns)
        parts.append(f"| {TITLES[name]} | {found[columns[0]]['anchors']:,} | {cells} |")
    parts += [
        "",
        "**Proxy and truth**",
        "",
        f"| log | proxy | anchors | the first is the true first | of the true {TOP} |",
        "|---" * 5 + "|",
    ]
    for name, result in results.items():
        for one, found in (result["proxy_is_truth"] or {}).items():
            parts.append(
                f"| {TITLES[name]} | {one} | {found['anchors']:,} | {found['first']:.2f} | {found['of_four']:.2f} |"
            )
    return "\n".join(parts)


def _cell(figure: Mapping[str, float] | None, *, signed: bool = False) -> str:
    if figure is None:
        return "–"
    sign = "+" if signed else ""
    value, low, high = (f"{figure[key]:{sign}.3f}".replace("-", "−") for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--images", type=Path, help="folder for the plots; without it the tables alone")
    given = parser.parse_args()
    results = read(given.files)
    print(tables(results))
    if given.images is not None:
        for path in write_plots(results, given.images):
            print(f"{path}: {path.stat().st_size / 1024:.0f} KB")


if __name__ == "__main__":
    main()
