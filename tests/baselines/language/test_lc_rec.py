"""LC-Rec and MiniOneRec: fitted on a made-up log, learned, repeated, saved and loaded."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conrec.baselines.language import mini_one_rec
from conrec.baselines.language.lc_rec import LcRec
from conrec.baselines.language.mini_one_rec import MiniOneRec
from conrec.baselines.registry import REGISTRY
from conrec.config import GrpoConfig, load_config
from conrec.errors import ArtefactError
from conrec.llm.course import Curve
from conrec.protocol import NEGATIVE
from conrec.workspace import Workspace
from tests.baselines.language.worlds import language_space
from tests.baselines.worlds import CHAIN_CUT, chains, follows_chains

OVERRIDES = {
    "baselines": {
        "lc_rec_negatives": {"epochs": 36, "intention_share": 0, "preference_share": 0},
        "lc_rec_both": {"epochs": 1},
        "mini_one_rec": {"samples": 64, "batch_size": 16, "evaluations": 2, "learning_rate": 3e-4},
    },
    "sft": {"learning_rate": 5e-3, "evaluations": 2, "batch_size": 8},
    "prompts": {"max_events": 12},
    "evaluation": {"top_k": 1},
}


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    torch.set_num_threads(1)
    untitled = list(chains().item_ids)  # the row needs no titles
    return language_space(chains(), CHAIN_CUT, tmp_path_factory.mktemp("run"), overrides=OVERRIDES, titles=untitled)


@pytest.fixture(scope="module")
def fitted(space: Workspace) -> LcRec:
    """The row on negatives, put where MiniOneRec starts."""
    model = LcRec.fit(space, "lc-rec-negatives")
    folder = space.folder / "models" / "lc-rec-negatives" / "model"
    folder.mkdir(parents=True)
    model.save(folder)
    return model


def test_what_comes_next_is_learned(fitted: LcRec) -> None:
    assert follows_chains(fitted, chains()) > 0.8
    assert fitted.curve["validation_fhr@1"][-1][1] > 0.9


def test_it_answers_alike_when_it_is_loaded(space: Workspace, fitted: LcRec) -> None:
    loaded = LcRec.load(space.folder / "models" / "lc-rec-negatives" / "model", space, "lc-rec-negatives")
    queries = space.validation.queries.select(slice(0, 6))
    one, two = (model.predict(chains(), queries, 10) for model in (fitted, loaded))
    assert (one.item == two.item).all()
    assert (one.score == two.score).all()
    assert loaded.parameters == fitted.parameters > 10_000


def test_a_row_on_both_signs_trains_on_likes_too(space: Workspace) -> None:
    model = LcRec.fit(space, "lc-rec-both")
    assert model.recommender.context == "both"
    assert np.isfinite([value for _, value in model.curve["loss"]]).all()


def test_mini_one_rec_keeps_what_lc_rec_learned(space: Workspace, fitted: LcRec) -> None:
    model = MiniOneRec.fit(space, "mini-one-rec")
    values = [value for _, value in model.curve["validation_fhr@1"]]
    assert len(values) == 2
    assert max(values) >= fitted.curve["validation_fhr@1"][-1][1] - 1e-9
    assert follows_chains(model, chains()) >= follows_chains(fitted, chains()) - 0.05
    assert {"reward_std", "kl"} <= set(model.curve)
    again = MiniOneRec.fit(space, "mini-one-rec")
    assert again.curve == model.curve


def test_mini_one_rec_has_the_grpo_of_conrecs_stages(
    space: Workspace, fitted: LcRec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of `grpo` that its own section does not say, so that it is trained anew where that changes."""
    changed = {"clip": 0.07, "std_floor": 0.3, "updates_per_rollout": 2, "micro_batch_size": 4, "batch_size": 99}
    overrides = {**OVERRIDES, "grpo": {**changed, "learning_rate": 0.5, "group_size": 3, "evaluations": 1}}
    other = Workspace(space.folder, load_config(overrides={**overrides, "run": {"threads": 1}}))
    for name in ("prepared", "items", "trie"):
        setattr(other, name, getattr(space, name))
    seen: list[GrpoConfig] = []

    def spy(*given: Any, **_: Any) -> Curve:
        seen.extend(one for one in given if isinstance(one, GrpoConfig))
        return Curve()

    monkeypatch.setattr(mini_one_rec, "train_stage", spy)
    MiniOneRec.fit(other, "mini-one-rec")
    own = other.config.baselines.mini_one_rec
    (config,) = seen
    assert (config.clip, config.std_floor, config.updates_per_rollout, config.micro_batch_size) == (0.07, 0.3, 2, 4)
    assert (config.batch_size, config.learning_rate) == (16, 3e-4)
    assert (config.group_size, config.rollouts, config.evaluations) == (own.group_size, own.rollouts, own.evaluations)
    assert [(one.context, one.samples, one.kl_weight) for one in config.stages] == [("negative", 64, own.kl_weight)]
    sections = REGISTRY["mini-one-rec"].sections
    assert space.section(*sections) != other.section(*sections)


def test_a_damaged_or_missing_start_is_refused(space: Workspace, fitted: LcRec, tmp_path: Path) -> None:
    shutil.copytree(space.folder / "models" / "lc-rec-negatives" / "model", tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text("{")
    for folder in (tmp_path / "model", tmp_path / "absent"):
        with pytest.raises(ArtefactError, match="is not a saved model"):
            LcRec.load(folder, space, "lc-rec-negatives")


def test_everything_in_the_log_is_a_dislike() -> None:
    """What the tests above rest on."""
    assert (chains().feedback == NEGATIVE).all()
