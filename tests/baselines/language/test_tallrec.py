"""TALLRec: the contract of all rows, its loss by the letter, and that it learns who dislikes what."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from conrec.baselines.language.tallrec import Judged, TallRec, judged_loss
from conrec.baselines.language.titles import TitlePrompts
from conrec.errors import ArtefactError, NotApplicableError
from conrec.llm.backbone import Backbone
from conrec.logs.log import Log
from conrec.recommender import Queries
from conrec.settings.baselines.language import TallRecConfig
from conrec.workspace import Workspace
from tests.baselines.language.worlds import ITEMS, TASTE_CUT, TASTE_TITLES, TINIER, backbone_of, language_space, taste
from tests.baselines.worlds import space_of
from tests.conformance import CUT, RecommenderConformance, small_log


def untrained(log: Log, cut: int, **more: object) -> TallRec:
    space = space_of(log, cut)
    backbone = backbone_of(space, 0.3, TINIER)
    return TallRec(backbone, TitlePrompts(backbone, space.titles, 4, 24), TallRecConfig(), 16, **more)


class TestTallRec(RecommenderConformance):
    tolerance = 1e-4

    def fit(self, log: Log, cut: int) -> TallRec:
        return untrained(log, cut)


@pytest.fixture(scope="module")
def model() -> TallRec:
    torch.set_num_threads(1)
    return untrained(small_log(), CUT)


def test_scores_are_the_odds_of_yes_in_a_row_of_its_own(model: TallRec) -> None:
    log = small_log()
    queries = Queries(np.array([3, 5], dtype=np.int32), np.array([CUT, CUT]))
    scores = model.score(log, queries, np.array([[4, 9], [0, -1]], dtype=np.int32))
    for row, place, item in ((0, 0, 4), (0, 1, 9), (1, 0, 0)):
        prompt = [*model.prompts.pointwise(log, int(queries.user[row]), CUT), *model.prompts.title(item)]
        with torch.no_grad():
            logits = model.backbone.model(torch.tensor([prompt])).logits[0, -1]
        odds = float(logits[model.prompts.yes] - logits[model.prompts.no])
        assert scores[row, place] == pytest.approx(odds, abs=1e-4)


def test_a_ranking_holds_the_scores_of_candidates(model: TallRec) -> None:
    log = small_log()
    queries = Queries(np.arange(2, 6, dtype=np.int32), np.full(4, CUT))
    ranking = model.predict(log, queries, 10)
    np.testing.assert_allclose(model.score(log, queries, ranking.item), ranking.score, atol=1e-4)


def test_loss_is_its_formula(model: TallRec) -> None:
    yes, no = model.prompts.yes, model.prompts.no
    batch = [Judged([5, 6, 7], [[20, 21], [22], [20, 23]]), Judged([8, 9], [[24], [25, 26]])]
    first, others = [], []
    for one in batch:
        for number, title in enumerate(one.titles):
            logits = model.backbone.model(torch.tensor([[*one.ids, *title]])).logits[0, -1]
            odds = logits[yes] - logits[no]
            (others if number else first).append(-torch.nn.functional.logsigmoid(-odds if number else odds))
    expected = (sum(first) / 2 + sum(others) / 3) / 2
    assert float(judged_loss(model.backbone, batch, yes, no).detach()) == pytest.approx(
        float(expected.detach()), rel=1e-4
    )


def test_nothing_is_ranked_where_the_catalogue_is_large(model: TallRec) -> None:
    small = untrained(small_log(), CUT, unranked="too large")
    ranking = small.predict(small_log(), Queries(np.array([3], dtype=np.int32), np.array([CUT])), 5)
    assert ranking.item.tolist() == [[-1] * 5]
    assert np.isneginf(ranking.score).all()


FIT = {"tallrec": {"samples": 200, "batch_size": 8, "learning_rate": 3e-3, "evaluations": 2, "exposed": 3}}


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, TallRec]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("run")
    space = language_space(taste(), TASTE_CUT, folder, overrides={"baselines": FIT}, titles=TASTE_TITLES)
    return space, TallRec.fit(space, "tallrec")


def test_what_is_disliked_is_learned(fitted: tuple[Workspace, TallRec]) -> None:
    """Red items are disliked: their odds exceed those of blue ones, candidates of the test period included."""
    space, model = fitted
    assert max(value for _, value in model.curve["validation_auc"]) > 0.7  # about half of the others are blue
    test = space.prepared.anchors.of_split("test")
    scores, red = model.score(taste(), test.queries, test.candidates), test.candidates % 2 == 0
    above = [(own[which][:, None] > own[~which]).mean() for own, which in zip(scores, red, strict=True)]
    assert np.mean(above) > 0.95
    top = model.predict(taste(), test.queries, 5).item
    assert (top % 2 == 0).mean() > 0.95


def test_one_seed_gives_one_model(fitted: tuple[Workspace, TallRec]) -> None:
    space, model = fitted
    again = TallRec.fit(space, "tallrec")
    assert again.curve == model.curve
    for name, value in model.backbone.model.state_dict().items():
        assert torch.equal(value, again.backbone.model.state_dict()[name])


def test_it_answers_alike_when_it_is_loaded(fitted: tuple[Workspace, TallRec], tmp_path: Path) -> None:
    space, model = fitted
    model.save(tmp_path)
    loaded = TallRec.load(tmp_path, space, "tallrec")
    test = space.prepared.anchors.of_split("test")
    assert (
        loaded.score(taste(), test.queries, test.candidates) == model.score(taste(), test.queries, test.candidates)
    ).all()
    assert loaded.parameters == model.parameters > 10_000


def test_samples_are_of_the_training_period_and_answer_first(fitted: tuple[Workspace, TallRec]) -> None:
    space, model = fitted
    samples = model.samples(space, "tallrec")
    assert len(samples) == 200
    for one in samples:
        text = model.backbone.tokenizer.decode(one.titles[0])
        assert text.startswith(" Red")
        assert text.endswith("<|end|>")
        assert 2 <= len(one.titles) <= 1 + 3 + 2
        assert one.titles[0] not in one.titles[1:]


def test_no_item_of_the_history_or_disliked_in_the_window_is_answered_with_no(tmp_path: Path) -> None:
    """So many are asked for that all items which may be drawn are: every other item of the training period."""
    settings = {"samples": 40, "exposed": 3, "uniform": 1_000}
    space = language_space(
        taste(), TASTE_CUT, tmp_path, overrides={"baselines": {"tallrec": settings}}, titles=TASTE_TITLES
    )
    model = TallRec.of(space, backbone_of(space, sizes=TINIER))
    of_title = {tuple(model.prompts.title(item)): item for item in range(ITEMS)}
    log, anchors = space.training_log, space.prepared.anchors.of_split("train")
    barred_of: dict[tuple[int, ...], list[set[int]]] = {}
    for row in range(len(anchors)):
        user, time = int(anchors.user[row]), int(anchors.timestamp[row])
        barred = {*log.item[log.history(user, time)].tolist(), *anchors.future_negatives[row].tolist()}
        key = (*model.prompts.pointwise(log, user, time), -1, int(anchors.next_item[row]))
        barred_of.setdefault(key, []).append(barred)
    assert max(len(one) for one in anchors.future_negatives) > 1
    for one in model.samples(space, "tallrec"):
        item, *others = [of_title[tuple(title)] for title in one.titles]
        assert len(set(others)) == len(others)
        assert set(range(ITEMS)) - set(others) in barred_of[(*one.ids, -1, item)]


def test_answers_that_begin_alike_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = language_space(taste(), TASTE_CUT, tmp_path, titles=TASTE_TITLES)
    plain = Backbone.text_ids

    def with_beginnings(self: Backbone, text: str) -> list[int]:
        """As tokenizers do that write the beginning of a word as a token of its own."""
        return [*plain(self, "_"), *plain(self, text)]

    monkeypatch.setattr(Backbone, "text_ids", with_beginnings)
    with pytest.raises(NotApplicableError, match="first tokens of Yes and No, and both are '_'"):
        TallRec.fit(space, "tallrec")


def test_a_large_catalogue_is_not_ranked(tmp_path: Path) -> None:
    overrides = {"baselines": {"tallrec": {"ranked_cells": 10}}}
    space = language_space(taste(), TASTE_CUT, tmp_path, overrides=overrides, titles=TASTE_TITLES)
    why = TallRec.of(space, space.backbone("conrec-translation")).unranked
    assert why == "to rank, it would read 60 titles for each of 81 anchors, more than tallrec.ranked_cells = 10"


def test_a_log_without_titles_is_refused(tmp_path: Path) -> None:
    log = taste()
    space = space_of(log, TASTE_CUT, titles=list(log.item_ids), folder=tmp_path)
    with pytest.raises(NotApplicableError, match="titles"):
        TallRec.fit(space, "tallrec")


def test_a_damaged_folder_is_refused(fitted: tuple[Workspace, TallRec], tmp_path: Path) -> None:
    space, model = fitted
    model.save(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(ArtefactError, match="model"):
        TallRec.load(tmp_path, space, "tallrec")
