"""The study of motivation: coverage by the formula, controls of the same size, tables and plots from the results."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse as sp

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.studies import motivation, motivation_plots

from conrec.arrays import Ragged
from conrec.logs.counts import Counts, FileCounts
from conrec.logs.schema import EVENTS, ITEMS
from conrec.logs.sources import Loaded
from conrec.settings.simulation import SimulationConfig

SMALL = SimulationConfig(users=120, items=300, events=12_000, days=60, categories=20, truth_items=0)


def literal(items, ranked, of):
    """`motivation.coverage` of one anchor, item by item."""
    ranked = [one for one in ranked[: motivation.TOP] if one >= 0]
    had = [any(one in of[item] for item in items) for one in ranked]
    pure = [any(one in of[item] for one in ranked) for item in items]
    return [had[0], any(had), sum(had) / len(had), np.mean(pure) if items else np.nan]


def test_coverage_is_that_of_the_definition():
    random = np.random.default_rng(0)
    of = [set(random.choice(9, random.integers(0, 4), replace=False).tolist()) for _ in range(30)]
    matrix = sp.csr_matrix(np.array([[float(one in own) for one in range(9)] for own in of]))
    rows = [random.choice(30, random.integers(0, 5), replace=False).tolist() for _ in range(200)]
    ranked = np.stack([random.permutation(9)[:6] for _ in range(200)])
    ranked[:40, 2:] = -1
    found = motivation.coverage(Ragged.from_rows(rows), ranked, matrix)
    np.testing.assert_allclose(found, [literal(*one, of) for one in zip(rows, ranked, strict=True)])
    ranked[:] = -1
    assert np.isnan(motivation.coverage(Ragged.from_rows(rows), ranked, matrix)).all()


def world(events, categories):
    items = [{"item_id": f"i{n}", "title": "", "text": "", "category": own} for n, own in enumerate(categories)]
    columns = zip(*[(user, f"i{item}", time, sign) for user, item, time, sign in events], strict=True)
    table = pa.table([list(one) for one in columns], schema=EVENTS)
    counts = FileCounts("x", 1, 1, {}, {}, {})
    return motivation._world(Loaded("x", table, pa.Table.from_pylist(items, schema=ITEMS), Counts(counts, counts), {}))


def test_a_proxy_reads_nothing_of_the_window():
    # u disliked five of "a" before, one of "b" in the window, five of "c" and one of "a" after it.
    categories = [["a"], ["a"], ["a"], ["a"], ["a"], ["b"], ["c"], ["c"], ["c"], ["c"], ["c"], ["a"]]
    events = [("u", n, n, -1) for n in range(5)] + [("u", 5, 100, -1)]
    events += [("u", n, 300 + n, -1) for n in range(6, 12)]
    proxy = motivation.Proxy(world(events, categories), 50)
    at = np.array([0]), np.array([100])
    assert proxy.rank(*at, "count", later=False).tolist() == [[0, 2, -1, -1]]
    assert proxy.rank(*at, "count", later=True).tolist() == [[2, 0, -1, -1]]
    assert proxy.rank(np.array([0]), np.array([308]), "count", later=True).tolist() == [[-1] * 4]


def test_what_is_met_around_a_reaction():
    categories = [["a"], ["a"], ["b"], ["a", "b"], ["b"]]
    events = [("u", 1, 10, 0), ("u", 2, 20, 0), ("u", 0, 50, -1), ("u", 4, 60, 1), ("u", 3, 70, 0), ("u", 2, 500, 0)]
    users, shares = motivation.around(world(events, categories), -1, 100, 10, 0)
    assert users.tolist() == [0]
    np.testing.assert_allclose(shares, [[0.5, 0.5]])
    assert len(motivation.around(world(events, categories), -1, 5, 10, 0)[0]) == 0


@pytest.fixture(scope="module")
def results():
    found = motivation.rounded(motivation.study("simulator", motivation._simulated(SMALL), 0, resamples=30))
    return {"simulator": found, "movietweetings": found}


def test_a_study_has_every_figure_and_sets_of_equal_size(results):
    one = results["simulator"]
    assert one["anchors"] > 30
    covered = one["coverage"]["truth"]
    for target in motivation.TARGETS:
        for other in ("random", "most disliked"):
            assert covered[f"{target}, {other}"]["mean_size"] == pytest.approx(covered[target]["mean_size"], rel=0.02)
        assert 0 <= covered[target]["top 1"]["low"] <= covered[target]["top 1"]["high"] <= 1
    assert covered["GTS"]["mean_size"] >= covered["future"]["mean_size"] >= 1
    assert covered["future"]["top 4"]["value"] >= covered["next item"]["top 4"]["value"]
    assert covered["future"]["top 4"]["value"] > covered["future, random"]["top 4"]["value"] + 0.1
    assert "next item, own last" not in one["coverage"]["excess"]
    assert 0 <= one["proxy_is_truth"]["count"]["first"] <= 1
    assert one["log"]["positives_per_negative"] == pytest.approx(5.6, rel=0.2)


def test_tables_and_plots_show_what_the_results_hold(results, tmp_path):
    text = motivation_plots.tables(results)
    value = results["simulator"]["coverage"]["truth"]["GTS"]["top 1"]["value"]
    assert any("| GTS |" in line and f"| {value:.3f} [" in line for line in text.splitlines())
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(blocks) == len(results["simulator"]["coverage"]) + 5
    for block in blocks:
        assert len({line.count("|") for line in block}) == 1, block[:3]
    for path in motivation_plots.write_plots(results, tmp_path):
        assert 5_000 < path.stat().st_size < 100_000
        assert path.read_text(encoding="utf-8").lstrip().startswith("<?xml")
    assert len(list(tmp_path.iterdir())) == 2 * len(motivation_plots.PLOTS)
