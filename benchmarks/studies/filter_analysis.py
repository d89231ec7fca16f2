"""Filters beside the rules that platforms use, on finished runs: results, tables and plots for docs/filter-analysis.md.

    python -m benchmarks.studies.filter_analysis --run movietweetings=FOLDER --run board-games=FOLDER
        [--models NAME ...] [--results benchmarks/results/filter_analysis.json] [--images docs/images]

A run is what `conrec run` made; nothing in it is changed. Runs that are not given stay in the results as they were, so
that each can be made anew alone. Tables are printed in Markdown. Each plot is written twice, for light and for dark
pages: ``filter-NAME``, the curves of one run; ``filter-users-NAME``, by kind of user; ``filter-equal`` and
``filter-within``, all runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common.drawings import write_drawing
from benchmarks.common.machine import machine
from benchmarks.common.rounding import rounded

from conrec.artefacts import read_json, write_json
from conrec.config import load_config
from conrec.filtering.analysis.analyse import analysis_of
from conrec.filtering.analysis.listings import SEGMENTS, at_main
from conrec.filtering.analysis.methods import known_models
from conrec.report.canvas import draw
from conrec.report.caught_curves import HEIGHT, paint_caught
from conrec.report.plots import interval_panels

MODELS = ("most-disliked", "live-popularity", "sasrec", "lc-rec-negatives", "lc-rec-both", "conrec")
"""Rows that are compared, those of them that a run has."""
WIDE = 0.2
"""The other bound of the table of calibrated thresholds, beside the main one."""
TITLES = {"movietweetings": "MovieTweetings", "board-games": "board games", "ml-100k": "MovieLens-100K"}
RESULTS = Path("benchmarks/results/filter_analysis.json")
IMAGES = Path("docs/images")
Found = Mapping[str, Any]


def analyse(folder: Path, models: Sequence[str] = MODELS) -> dict[str, Any]:
    """`conrec.filtering.analysis.analyse.analysis_of` a run, for those of ``models`` that it has.

    Raises:
        SystemExit: it has none of them.
    """
    config = load_config(file=folder / "config.toml")
    there = [one for one in models if one in known_models(folder, config)]
    if not there:
        raise SystemExit(f"{folder}: none of {', '.join(models)} has predictions")
    return {"source": config.data.source, **analysis_of(folder, config, there)}


def kept(found: Found) -> dict[str, Any]:
    """What the results keep of an analysis: no curves, two bounds, kinds of users and what remains at the main rate
    alone, and categories of the reference alone."""
    methods = {}
    for name, method in found["methods"].items():
        calibrated = [
            {**one, "test": {"segments": {"all": one["test"]["segments"]["all"]}}}
            for one in method["calibrated"]
            if one["bound"] in (found["main"], WIDE)
        ]
        equal = []
        for one in method["equal"]:
            test = {
                key: value for key, value in one["test"].items() if key != "categories" or name == found["reference"]
            }
            equal.append({**one, "test": test if one["rate"] == found["main"] else None})
        methods[name] = {**method, "curve": [], "calibrated": calibrated, "equal": equal}
    result: dict[str, Any] = rounded({**found, "methods": methods})
    return result


def write_plots(name: str, found: Found, folder: Path) -> list[Path]:
    """The plots of one run."""
    title = TITLES.get(name, name)
    curves = draw(paint_caught(found, title), HEIGHT, "", "")
    paths = write_drawing(curves, folder, f"filter-{name}")
    panels = {}
    for segment, words in SEGMENTS.items():
        if segment == "all":
            continue
        figures = {method: at_main(found, method) for method in found["methods"]}
        panels[words.partition(" (")[0]] = {
            method: one["test"]["segments"][segment]["caught"] or {}
            for method, one in figures.items()
            if one is not None and one["test"]["segments"][segment]["caught"]
        }
    users = interval_panels(panels, list(found["methods"]), found["reference"] or "", "", "")
    return [*paths, *write_drawing(users, folder, f"filter-users-{name}")]


def write_equal(runs: Mapping[str, Found], folder: Path) -> list[Path]:
    """All runs beside each other: caught at the main rate, and how well the items of one user are told apart."""
    names = list(dict.fromkeys(method for found in runs.values() for method in found["methods"]))
    reference = next(iter(runs.values()))["reference"] or ""
    caught, within = {}, {}
    for run, found in runs.items():
        at = {method: at_main(found, method) for method in found["methods"]}
        caught[TITLES.get(run, run)] = {method: one["caught"] for method, one in at.items() if one and one["caught"]}
        within[TITLES.get(run, run)] = {name: one["within"] for name, one in found["methods"].items() if one["within"]}
    equal = write_drawing(interval_panels(caught, names, reference, "", ""), folder, "filter-equal")
    apart = interval_panels(within, names, reference, "", "", {"chance, or the user alone": 0.5})
    return [*equal, *write_drawing(apart, folder, "filter-within")]


def tables(name: str, found: Found) -> str:
    """Markdown: caught at equal rates; what it costs by kind of user; what remains; calibrated thresholds."""
    counts, main = found["segments"]["all"], f"{found['main']:.0%}"
    reference = found["reference"]
    rates = [f"{one:.0%}" for one in found["rates"]]
    parts = [
        f"**{TITLES.get(name, name)}**: {found['anchors']:,} test anchors of {found['users']:,} users, "
        f"{counts['candidates']:,} candidates, {counts['positives']:,} liked items, {counts['negatives']:,} disliked; "
        f"validation {found['validation']['anchors']:,} anchors, {found['validation']['positives']:,} liked.",
        "",
        f"| method | {' | '.join(rates)} | less {reference} at {main} | of one user |",
        "|---" * (len(rates) + 3) + "|",
    ]
    for method, one in found["methods"].items():
        cells = [_value(each["caught"]) + ("*" if each["beyond"] else "") for each in one["equal"]]
        at = at_main(found, method)
        if at is not None:
            place = found["rates"].index(found["main"])
            cells[place] = _interval(at["caught"])
        parts.append(f"| {method} | {' | '.join(cells)} | {_difference(at)} | {_interval(one['within'])} |")
    parts += ["", f"| method, at {main} | filtered | a user's likes lost | " + " | ".join(SEGMENTS) + " |"]
    parts.append("|---" * (3 + len(SEGMENTS)) + "|")
    for method in found["methods"]:
        at = at_main(found, method)
        if at is not None:
            segments = at["test"]["segments"]
            whole = segments["all"]
            cells = [_value(whole["filtering_rate"]), _value(whole["user_false_filter_rate"])]
            cells += [
                f"{_value(segments[one]['false_filter_rate'])} / {_value(segments[one]['caught'])}" for one in SEGMENTS
            ]
            parts.append(f"| {method} | {' | '.join(cells)} |")
    parts += [
        "",
        f"| method, at {main} | diversity | entropy | coverage | over half lost | all lost |",
        "|---" * 6 + "|",
    ]
    remains = {"nothing dropped": found["before"]}
    remains |= {one: at["test"]["remains"] for one in found["methods"] if (at := at_main(found, one)) is not None}
    for method, one in remains.items():
        cells = [_value(one["diversity"], 4), _value(one["entropy"]), f"{one['coverage']:.4f}"]
        cells += [_value(one["over_half_lost"], 4), str(one["none_kept"])]
        parts.append(f"| {method} | {' | '.join(cells)} |")
    parts += [
        "",
        f"| method, bound {main} and {WIDE:.0%} | threshold | filtered | a user's likes lost | likes lost | caught |",
    ]
    parts.append("|---" * 6 + "|")
    for method, one in found["methods"].items():
        for each in one["calibrated"]:
            parts.append(f"| {method}, {each['bound']:.0%} | {_calibrated(each)} |")
    return "\n".join(parts)


def _calibrated(one: Found) -> str:
    figures = one["test"]["segments"]["all"]
    threshold = "none" if one["threshold"] is None else f"{one['threshold']:.4g}"
    names = ("filtering_rate", "user_false_filter_rate", "false_filter_rate", "caught")
    return " | ".join((threshold, *(_value(figures[key]) for key in names)))


def _value(one: Found | None, digits: int = 3) -> str:
    return "–" if one is None else f"{one['value']:.{digits}f}"


def _interval(one: Found | None) -> str:
    return "–" if one is None else f"{one['value']:.3f} [{one['low']:.3f}, {one['high']:.3f}]"


def _difference(at: Found | None) -> str:
    one = None if at is None else at["less_reference"]
    if one is None:
        return "–"
    return f"{one['difference']:+.3f} [{one['low']:+.3f}, {one['high']:+.3f}]".replace("-", "−")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--run", action="append", required=True, metavar="NAME=FOLDER", help="a finished run, repeated")
    parser.add_argument("--models", nargs="+", default=list(MODELS), help="rows; those that a run lacks are left out")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--images", type=Path, default=IMAGES, help="folder of the plots")
    given = parser.parse_args()
    runs: dict[str, Any] = dict(read_json(given.results)["runs"]) if given.results.is_file() else {}
    for pair in given.run:
        name, equals, folder = pair.partition("=")
        if not (name and equals and Path(folder).is_dir()):
            parser.error(f"--run {pair}: expected NAME=FOLDER, the folder of a finished run")
        found = analyse(Path(folder), given.models)
        runs[name] = kept(found)
        print(tables(name, runs[name]), "\n")
        for path in write_plots(name, found, given.images):
            print(f"{path}: {path.stat().st_size / 1024:.0f} KB")
    ordered = {name: runs[name] for name in (*TITLES, *runs) if name in runs}
    write_equal(ordered, given.images)
    write_json(given.results, {"study": "filter_analysis", "machine": machine("cpu"), "runs": ordered})
    print(f"written: {given.results}")


if __name__ == "__main__":
    main()
