"""The benchmarks at a size at which nothing can be timed: what they compare must agree all the same."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from common.grpo_task import Bound, Ours, Task, plain_gradient, tree_gradient  # noqa: E402
from common.harness import Report  # noqa: E402
from common.memory import Peak, alone  # noqa: E402
from common.models import Sizes  # noqa: E402
from conrec.config import BackboneConfig  # noqa: E402

SMALL = Sizes(hidden=32, intermediate=64, layers=2, heads=2, key_value_heads=1, text=50, codebook=16)
TASK = Task(prompts=3, prompt=9, group=6, items=200, sizes=SMALL)


def script(name: str) -> ModuleType:
    """One of the scripts, as a module."""
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def claims(report: Report) -> dict[str, float]:
    return {one.name: one.value for one in report.claims}


@pytest.mark.parametrize("name", ["", "beams-5"])
def test_generation(name):
    generation = script("generation")
    model = generation.qwen3(SMALL)
    setting = generation.Setting(name, prompt=11, batch=3, beams=5, items=200, turns=1, processor=not name)
    codes = generation.draw_codes(200, SMALL.codebook, seed=0)
    report = Report("generation")
    generation.contest(report, model, codes, setting, "cpu")
    generation.certificate(report, model, codes, setting, name)
    suffix = f"/{name}" if name else ""
    found = claims(report)
    assert found[f"largest_score_error{suffix}"] <= generation.TIE
    assert found[f"certified_equals_exhaustive{suffix}"] == 1
    assert report.figures[f"certified_proved{suffix}"] == 1
    assert report.runs == (0 if name else 1)
    assert ("blocked_over_unblocked" in report.figures) is not name.startswith("beams")


def test_variants_have_the_bounds_of_the_main_configuration():
    generation = script("generation")
    assert set(generation.QUICK) | {"near-uniform", "smollm2-135m"} == set(generation.PARTS)
    report = Report("generation")
    setting = generation.Setting("beams-5", prompt=11, batch=2, beams=5, items=200, turns=1)
    generation.contest(report, generation.qwen3(SMALL), generation.draw_codes(200, 16, seed=0), setting, "cpu")
    bounds = {one.name: one.at_least or one.at_most for one in report.claims}
    assert bounds["speedup_over_generate/beams-5"] == 25
    assert bounds["time_over_prefill/beams-5"] == 1.3
    assert any("warm-up" in note for note in report.notes)  # with one of its two prompts


def test_the_gradient_of_a_step_is_that_of_the_plain_form():
    # Clipped to norm 1 both; the reference has moved away, so that KL has a gradient.
    ours = Ours(replace(TASK, dtype=torch.float64))
    ours.optimiser = torch.optim.SGD(ours.policy.model.parameters(), lr=0.0)
    for plain, found in zip(plain_gradient(ours), tree_gradient(ours), strict=True):
        torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rollouts", ["sample", "gumbel"])
def test_a_step_learns_and_the_bound_reads_its_nodes(rollouts):
    ours = Ours(TASK, rollouts=rollouts)
    bound = Bound(ours)
    assert 2 <= bound.nodes <= 2 * TASK.group
    assert bound.ids.shape == (TASK.prompts, TASK.prompt + bound.nodes)
    before = [one.detach().clone() for one in ours.policy.model.parameters()]
    drawn = ours.rollouts().item
    ours()
    assert any(not torch.equal(one, two) for one, two in zip(before, ours.policy.model.parameters(), strict=True))
    assert not torch.equal(drawn, ours.rollouts().item)  # the next step draws anew


def test_grpo_without_trl_says_so(monkeypatch):
    grpo = script("grpo")
    monkeypatch.setattr(grpo.importlib.util, "find_spec", lambda name: None)
    report = Report("grpo")
    grpo.race(report, TASK, "", 2)
    speedup, over = report.claims
    assert (over.name, over.runs) == ("time_over_bound", 2)
    shown = speedup.as_json()
    assert shown == {"claim": "speedup_over_trl", "value": None, "at_least": 12, "holds": False, "runs": 0}
    assert report.figures["blocked_over_unblocked"]["repeats"] == 2
    assert any("conrec[bench]" in note for note in report.notes)
    assert report.runs == 2


@pytest.mark.slow
def test_trl_takes_the_steps_that_it_is_asked_for():
    pytest.importorskip("trl")
    from common.grpo_trl import run_trl  # noqa: PLC0415

    seconds: list[float] = []
    # The reward looks every rollout up among the items: one that does not exist, or is blocked, would fail here.
    run_trl(TASK, 2, seconds.append)
    run_trl(replace(TASK, prompts=4), 1, seconds.append, rows=2)
    assert len(seconds) == 3


def test_trie():
    trie = script("trie")
    report = Report("trie")
    setting = trie.Setting(items=3000, codebook=32, batch=2, prompt=9, beams=4, turns=1)
    trie.measure(report, setting, "", "cpu", torch.float32)
    assert set(claims(report)) == {"bytes_per_item", "mask_share_of_step"}
    assert claims(report)["bytes_per_item"] < 100
    assert 0 < claims(report)["mask_share_of_step"] < 1
    # The file leaves out the edge of each item, which is the inverse of the item of each edge.
    assert report.figures["file_bytes_per_item"] >= claims(report)["bytes_per_item"] - 4


def test_the_beams_of_the_second_step_stand_where_their_codes_lead():
    trie = script("trie")
    setting = trie.Setting(items=3000, codebook=32, batch=2, prompt=9, beams=4, turns=1)
    built = trie.Trie.from_codes(trie.draw_codes(setting.items, setting.codebook, seed=0), setting.codebook)
    blocked = trie.draw_blocked(setting.batch, setting.items, setting.blocked)
    first, second = trie._steps(trie.LiveItems(built), blocked, setting, "cpu", torch.float32)
    offset = first.backbone.code_offset
    for row in range(setting.batch):
        for beam in range(setting.beams):
            one = first.tokens[row, second.parents[row, beam]] - offset[0]
            two = second.tokens[row, beam] - offset[1]
            state = built.step(built.step(built.root(1), one[None], 0), two[None], 1)
            assert int(state) == int(second.state[row, beam]) >= 0


def fill(threads: int, mebibytes: int) -> float:
    """Peak of a process that fills so much memory and lets go of it."""
    peak = Peak("cpu")
    torch.ones(mebibytes * 2**20 // 4)
    return peak.mebibytes()


@pytest.mark.slow
def test_peak_memory_sees_what_was_allocated():
    try:
        found = alone(fill, 64)
    except OSError:
        pytest.skip("this system does not tell how much is resident")
    assert 60 < found < 100


def test_semantic_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("faiss")
    ours = script("semantic_ids")
    report = Report("semantic_ids")
    monkeypatch.setattr(ours, "PEERS", {name: ours.PEERS[name] for name in ("residual k-means", "FAISS beam 5")})
    ours.compare(report, "made up", ours.item_vectors.clusters(2000, 16, 0), True)
    found = claims(report)
    assert found["level_1_use/made up"] == 1
    assert found["collisions_after/made up"] == 0
    for what in ("", "/held out"):
        assert 0.5 < found[f"error_over_best_peer/made up{what}"] < 2
        assert 0.5 < found[f"neighbours_over_best_peer/made up{what}"] < 2
    assert set(report.figures) >= {"error/made up/FAISS beam 5", "neighbours/held out/made up/RQ-VAE"}


def test_products_of_encoding_are_those_of_the_beam() -> None:
    ours = script("semantic_ids")
    config = ours.RqVaeConfig(codebook_size=8, latent_dim=4, hidden_dims=(6,))
    rows = ours.item_vectors.clusters(50, 5, 0)
    products = ours.Products(ours.RqVae(5, config, torch.Generator().manual_seed(0)), rows, config.beam)
    assert [len(points) for points in products.points] == [50, 250, 250]
    products.run()


@pytest.fixture(scope="module")
def tuning(ml100k):
    from common.sft_task import Task, Tasked  # noqa: PLC0415 - the module of a benchmark

    sizes = BackboneConfig(hidden_size=32, layers=2, heads=2, key_value_heads=1, intermediate_size=64, vocabulary=300)
    return Tasked(Task(users=12, sizes=sizes), ml100k)


def test_sft(tuning):
    pytest.importorskip("accelerate")
    sft = script("sft")
    report = Report("sft")
    sft.race(report, tuning, 1)
    sft.loss(report, tuning)
    sft.padding(report, tuning)
    found = claims(report)
    assert all(found[f"speedup_over_trainer{variant}"] > 0 for variant in ("", "/grouped", "/same-steps"))
    assert found["largest_loss_difference"] <= 1e-4
    # The Trainer reads every history anew for every sample, and both read each sample once an epoch.
    read = sum(len(row.ids) for row in tuning.rows) / tuning.samples
    for variant in ("", "/grouped", "/same-steps"):
        assert report.figures[f"read_tokens_per_sample/trainer{variant}"] == pytest.approx(read, rel=1e-4)
    assert read > 3 * report.figures["read_tokens_per_sample/ours"]
    assert 0 <= report.figures["padding_share/ours, all users"] < 0.5
    assert report.figures["shown_tokens_over_those_of_the_prompt, least"] >= 0.5


def test_sft_samples_are_the_same_in_both_forms(tuning):
    from common.sft_task import samples_in_both_forms  # noqa: PLC0415

    levels = len(tuning.initial.sizes)
    assert [one.ids for one in tuning.cut()] == [one.ids for one in tuning.stretches]
    samples = samples_in_both_forms(tuning)
    assert len(samples) == tuning.samples == sum(sum(one.target) for one in tuning.stretches) // levels
    for stretch, place, row in samples:
        assert stretch.ids[place : place + levels] == row.ids[-levels:]
        assert all(stretch.target[place : place + levels])
        assert row.target == [False] * (len(row.ids) - levels) + [True] * levels


def test_sft_without_accelerate_says_so(tuning, monkeypatch):
    sft = script("sft")
    monkeypatch.setattr(sft.importlib.util, "find_spec", lambda name: None)
    report = Report("sft")
    sft.race(report, tuning, 1)
    assert {one.name: (one.runs, one.holds) for one in report.claims} == {
        f"speedup_over_trainer{variant}": (0, False) for variant in ("", "/grouped", "/same-steps")
    }
    assert any("conrec[bench]" in note for note in report.notes)
