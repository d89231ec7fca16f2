"""The harness of the benchmarks: turns, claims, and the last line that machines read."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from common.catalogue import draw_blocked, draw_codes  # noqa: E402
from common.harness import Report, Spread, Turns, arguments, take_turns  # noqa: E402
from common.models import SPREAD, Sizes, qwen3, random_prompts  # noqa: E402
from common.peers import Lists, PrefixDictionary, TrieProcessor, error_between, exhaustive  # noqa: E402
from common.table import BEGIN, END, fill  # noqa: E402


def test_turns_alternate_and_are_reversed_every_second_time():
    called: list[str] = []
    things = {"a": lambda: called.append("a"), "b": lambda: called.append("b")}
    turns = take_turns(things, 2, warm={"a": False, "b": False})
    assert called == ["a", "b", "b", "a"]
    assert [len(turn) for turn in turns.seconds["a"]] == [1, 1]


def test_calls_within_a_turn_and_the_warm_up():
    called: list[str] = []
    things = {"long": lambda: called.append("l"), "short": lambda: called.append("s")}
    turns = take_turns(things, 3, calls={"short": 4}, warm={"long": False})
    assert called.count("l") == 3
    assert called.count("s") == 1 + 3 * 4  # the first is not timed
    assert called[0] == "s"
    assert [len(turn) for turn in turns.seconds["short"]] == [4, 4, 4]


def test_a_ratio_is_taken_within_turns():
    # The machine is ten times slower in the second turn: the ratio is 2 all the same.
    turns = Turns({"over": [[2.0], [20.0], [2.2]], "under": [[1.0, 1.0, 9.0], [10.0], [1.1]]})
    assert turns.ratio("over", "under") == Spread(2.0, 2.0, 2.0, 3)
    assert turns.spread("under").repeats == 5
    # Of several names the medians are added: (2 + 2) / 1 in every turn.
    assert turns.ratio(("over", "over"), "under") == Spread(4.0, 4.0, 4.0, 3)


@pytest.mark.parametrize(
    ("value", "bound", "holds"),
    [
        (25.0, {"at_least": 25}, True),
        (24.9, {"at_least": 25}, False),
        (1.3, {"at_most": 1.3}, True),
        (1.31, {"at_most": 1.3}, False),
        (math.nan, {"at_most": 1.3}, False),
        (math.nan, {"at_least": 0}, False),
    ],
)
def test_a_claim_holds_where_its_bound_is_kept(value, bound, holds):
    report = Report("x")
    report.claim("c", value, runs=1, **bound)
    assert report.claims[0].holds is holds


def test_a_claim_has_one_bound_and_one_name():
    report = Report("x")
    report.claim("c", 1.0, at_most=2, runs=1)
    with pytest.raises(ValueError, match="there already"):
        report.claim("c", 1.0, at_most=2, runs=1)
    with pytest.raises(ValueError, match="one bound"):
        report.claim("d", 1.0, at_most=2, at_least=0, runs=1)


def test_the_last_line_is_one_json_object_without_nan(capsys, tmp_path):
    report = Report("x", quick=True, runs=3)
    report.claim("fast", math.inf, at_least=25, runs=3)
    report.claim("slow/variant", 2.0, at_most=1, runs=2)
    report.figure("seconds", Spread(1.0, 0.5, 2.0, 3))
    report.note("something was left out")
    report.finish({"cpu": "a processor"}, tmp_path / "deep" / "x.json")
    last = capsys.readouterr().out.rstrip("\n").splitlines()[-1]
    found = json.loads(last)
    assert found == json.loads((tmp_path / "deep" / "x.json").read_text(encoding="utf-8"))
    assert found["claims"] == [
        {"claim": "fast", "value": None, "at_least": 25, "holds": True, "runs": 3},
        {"claim": "slow/variant", "value": 2.0, "at_most": 1, "holds": False, "runs": 2},
    ]
    assert (found["runs"], found["quick"], found["machine"]) == (3, True, {"cpu": "a processor"})
    assert found["figures"]["seconds"] == {"median": 1.0, "low": 0.5, "high": 2.0, "repeats": 3}


def test_arguments(tmp_path):
    given = arguments("Doc.", ("main", "other"), ["--quick", "--json", str(tmp_path / "x"), "--only", "main"])
    assert (given.quick, given.device, given.json) == (True, "cpu", tmp_path / "x")
    assert given.wants("main")
    assert not given.wants("other")
    assert arguments("Doc.", ("main",), []).wants("main")


@pytest.mark.parametrize("clustered", [True, False])
def test_catalogues_have_distinct_codes_in_range(clustered):
    codes = draw_codes(2000, 64, seed=1, clustered=clustered)
    assert codes.shape == (2000, 3)
    assert len(torch.unique(codes, dim=0)) == 2000
    assert int(codes.min()) >= 0
    assert int(codes.max()) < 64
    assert torch.equal(codes, draw_codes(2000, 64, seed=1, clustered=clustered))
    largest = float(torch.bincount(codes[:, 0]).max()) / 2000
    assert (largest > 0.03) is clustered


SMALL = Sizes(hidden=32, intermediate=64, layers=2, heads=2, key_value_heads=1, text=50, codebook=8)


@torch.no_grad()
def test_logits_spread_as_in_a_trained_model():
    backbone = qwen3(SMALL)
    hidden = backbone.model.get_decoder()(input_ids=random_prompts(backbone, 16, 64, 0)).last_hidden_state[:, -1]
    assert float(backbone.head(hidden, 0).std(1).mean()) == pytest.approx(SPREAD[0], rel=1e-3)


def test_the_peers_allow_the_same_tokens():
    codes = draw_codes(30, 8, seed=0)
    offsets = (10, 18, 26)
    # Nothing but one item in the first row; some items blocked in the second.
    blocked = torch.stack([torch.arange(29), torch.randint(5, (29,), generator=torch.Generator().manual_seed(0))])
    dictionary = PrefixDictionary(codes, offsets)
    allowed = dictionary.settings(2, blocked)["prefix_allowed_tokens_fn"]
    processor = TrieProcessor(codes, 8, offsets, torch.device("cpu"))
    processor.settings(2, blocked)
    for row in range(2):
        left = set(range(30)) - set(blocked[row].tolist())
        prefixes = {
            tuple((codes[item] + torch.tensor(offsets)).tolist()[:level]) for item in left for level in range(3)
        }
        for prefix in prefixes:
            level = len(prefix)
            follow = {int(codes[item, level]) + offsets[level] for item in left
                      if tuple((codes[item] + torch.tensor(offsets)).tolist()[:level]) == prefix}  # fmt: skip
            ids = torch.tensor([[1, 2, *prefix]])
            assert allowed(row, ids[0]) == sorted(follow)
            scores = torch.randn(2, 40)
            found = processor(ids.expand(2, -1), scores)[row]
            assert found.isfinite().nonzero()[:, 0].tolist() == sorted(follow)
            assert torch.equal(found[sorted(follow)], scores[row, sorted(follow)])


@torch.no_grad()
def test_every_item_scored_by_the_plain_model_sums_to_one():
    codes = draw_codes(30, 8, seed=0)
    backbone = qwen3(SMALL)
    blocked = torch.tensor([[0, 1], [2, 3], [4, 6]])
    scores = exhaustive(backbone, random_prompts(backbone, 3, 7, 0), codes, blocked)
    torch.testing.assert_close(scores.exp().sum(1), torch.ones(3))
    assert bool(scores.gather(1, blocked).isneginf().all())
    # One item from its tokens alone.
    tokens = codes[5] + torch.tensor(backbone.code_offset)
    ids = torch.cat([random_prompts(backbone, 3, 7, 0)[1], tokens])
    logits = backbone.model(ids[None]).logits[0, 6:9]
    left = torch.ones(30, dtype=torch.bool)
    left[blocked[1]] = False
    expected = 0.0
    for level in range(3):
        same = (codes[:, :level] == codes[5, :level]).all(1) & left
        allowed = torch.unique(codes[same, level]) + backbone.code_offset[level]
        expected += float(logits[level, tokens[level]] - torch.logsumexp(logits[level, allowed], 0))
    assert float(scores[1, 5]) == pytest.approx(expected, abs=1e-5)


def test_histories_are_distinct_items():
    blocked = draw_blocked(4, 60, 50)
    assert blocked.shape == (4, 50)
    assert all(len(set(row)) == 50 and set(row) <= set(range(60)) for row in blocked.tolist())
    assert draw_blocked(4, 60, 0).shape == (4, 0)


def test_lists_are_compared_item_by_item_and_ties_are_forgiven():
    codes = torch.tensor([[[0, 0, 0], [0, 0, 1]]])
    one = Lists(codes, torch.tensor([[-1.0, -2.0]]))
    assert error_between(one, one, 4) == 0
    other = Lists(codes, torch.tensor([[-1.0, -2.5]]))
    assert error_between(one, other, 4) == pytest.approx(0.5)
    swapped = Lists(codes, torch.tensor([[-2.0, -1.0]]))  # the same scores, of other items
    assert error_between(one, swapped, 4) == pytest.approx(1.0)
    tie = Lists(torch.tensor([[[0, 0, 0], [3, 3, 3]]]), torch.tensor([[-1.0, -2.0]]))
    assert error_between(one, tie, 4) == 0
    better = Lists(torch.tensor([[[3, 3, 3], [0, 0, 0]]]), torch.tensor([[-0.5, -1.0]]))
    assert error_between(one, better, 4) == pytest.approx(1.5)
    twice = Lists(torch.tensor([[[0, 0, 0], [0, 0, 0]]]), torch.tensor([[-1.0, -2.0]]))
    assert error_between(one, twice, 4) == math.inf


def test_make_bench_runs_scripts_and_not_what_they_share():
    scripts = {path.name for path in BENCHMARKS.glob("*.py")}
    assert "generation.py" in scripts
    assert not scripts & {path.name for path in (BENCHMARKS / "common").glob("*.py")}


def test_the_page_describes_every_script_and_runs_it_for_the_table():
    page = (BENCHMARKS.parent / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    (line,) = [one for one in page.splitlines() if one.strip().startswith("for name in")]
    for path in BENCHMARKS.glob("*.py"):
        assert f"**`{path.name}`**" in page
        assert path.stem in line.partition(";")[0].split()


def test_a_benchmark_ends_with_the_object_that_is_promised(tmp_path):
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "generation.py", "--quick", "--threads", "1", "--only", "batch-1"],
        capture_output=True, text=True, timeout=120, check=True, cwd=tmp_path,
    )  # fmt: skip
    found = json.loads(done.stdout.splitlines()[-1])
    assert set(found) == {"benchmark", "claims", "machine", "runs", "quick", "figures", "notes"}
    assert {"cpu", "cores", "torch_threads", "versions", "accelerator"} <= set(found["machine"])
    by_name = {claim["claim"]: claim for claim in found["claims"]}
    assert set(by_name) == {f"{name}/batch-1" for name in ("speedup_over_generate", "time_over_prefill",
                                                            "largest_score_error")}  # fmt: skip
    for claim in found["claims"]:
        assert len({"at_least", "at_most"} & set(claim)) == 1
    error = by_name["largest_score_error/batch-1"]
    assert error["holds"] is True
    assert error["value"] <= error["at_most"]


def test_the_table_shows_losses_and_replaces_itself():
    claims = [
        {"claim": "fast", "value": 30.123, "at_least": 25, "holds": True, "runs": 3},
        {"claim": "lean/x", "value": None, "at_most": 1, "holds": False, "runs": 0},
    ]
    machine = {
        "cpu": "A",
        "cores": 2,
        "torch_threads": 2,
        "accelerator": None,
        "python": "3.11",
        "versions": {"t": "1"},
    }
    results = [{"benchmark": "b", "claims": claims, "machine": machine}] * 2
    page = f"before\n{BEGIN}\nstale\n{END}\nafter"
    filled = fill(page, results)
    assert "| b | `fast` | 30.1 | ≥ 25 | 3 | holds |" in filled
    assert "| b | `lean/x` | – | ≤ 1 | 0 | **fails** |" in filled
    assert "stale" not in filled
    assert filled.count("Measured on A, 2 cores, 2 threads; Python 3.11, t 1.") == 1
    assert fill(filled, results) == filled
    with pytest.raises(ValueError, match="figures"):
        fill("no marks", results)
