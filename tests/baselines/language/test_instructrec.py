"""InstructRec: the contract of all rows, its scores by the letter, and that it learns which title is chosen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from conrec.baselines.language.instructrec import InstructRec
from conrec.baselines.language.titles import TitlePrompts
from conrec.errors import NotApplicableError
from conrec.logs.log import Log
from conrec.recommender import Queries
from conrec.settings.baselines.language import InstructRecConfig
from conrec.workspace import Workspace
from tests.baselines.language.worlds import TASTE_CUT, TASTE_TITLES, TINIER, backbone_of, language_space, taste
from tests.baselines.worlds import space_of
from tests.conformance import CUT, RecommenderConformance, small_log


def untrained(log: Log, cut: int, orders: int = 2) -> InstructRec:
    space = space_of(log, cut)
    backbone = backbone_of(space, 0.3, TINIER)
    return InstructRec(backbone, TitlePrompts(backbone, space.titles, 3, 24), InstructRecConfig(orders=orders), 16)


class TestInstructRec(RecommenderConformance):
    tolerance = 1e-4

    def fit(self, log: Log, cut: int) -> InstructRec:
        return untrained(log, cut, orders=1)


@pytest.fixture(scope="module")
def model() -> InstructRec:
    torch.set_num_threads(1)
    return untrained(small_log(), CUT)


def literal(model: InstructRec, prompt: list[int], title: list[int]) -> list[float]:
    """Log-probability of each token of a title behind a prompt, by the model's own pass."""
    with torch.no_grad():
        logs = model.backbone.model(torch.tensor([[*prompt, *title]])).logits[0].log_softmax(-1)
    return [float(logs[len(prompt) - 1 + place, token]) for place, token in enumerate(title)]


def test_a_candidates_score_is_the_mean_of_its_tokens_and_orders(model: InstructRec) -> None:
    log = small_log()
    queries = Queries(np.array([3], dtype=np.int32), np.array([CUT]))
    scores = model.score(log, queries, np.array([[4, -1, 12, 9]], dtype=np.int32))
    prompts = model.candidate_prompts(log, 3, CUT, [4, 12, 9])
    assert len(prompts) == 2
    for place, item in ((0, 4), (2, 12), (3, 9)):
        means = [np.mean(literal(model, prompt, model.prompts.title(item))) for prompt in prompts]
        assert scores[0, place] == pytest.approx(np.mean(means), abs=1e-4)


def test_orders_are_permutations_that_hang_on_the_question_alone(model: InstructRec) -> None:
    log, listed = small_log(), [4, 12, 9, 7, 1]
    many = untrained(log, CUT, orders=6)
    prompts = many.candidate_prompts(log, 3, CUT, listed)
    assert prompts == many.candidate_prompts(log, 3, CUT, listed)
    assert len({tuple(one) for one in prompts}) > 1
    assert len({tuple(sorted(one)) for one in prompts}) == 1
    assert prompts[:2] == untrained(log, CUT, orders=2).candidate_prompts(log, 3, CUT, listed)


def test_the_catalogue_is_ranked_by_the_probability_of_titles(model: InstructRec) -> None:
    log = small_log()
    ranking = model.predict(log, Queries(np.array([3], dtype=np.int32), np.array([CUT])), 30, history_eligible=True)
    prompt = model.prompts.matching(log, 3, CUT)
    for item, score in list(zip(ranking.item[0].tolist(), ranking.score[0].tolist(), strict=True))[::5]:
        assert score == pytest.approx(sum(literal(model, prompt, model.prompts.title(item))), abs=1e-3)


FIT = {"instructrec": {"samples": 200, "batch_size": 4, "learning_rate": 3e-3, "evaluations": 2, "matching": 0.5}}


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, InstructRec]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("run")
    space = language_space(taste(), TASTE_CUT, folder, overrides={"baselines": FIT}, titles=TASTE_TITLES)
    return space, InstructRec.fit(space, "instructrec")


def test_what_is_disliked_is_learned(fitted: tuple[Workspace, InstructRec]) -> None:
    """Red items are disliked: their titles become likelier than blue ones, listed and not."""
    space, model = fitted
    test = space.prepared.anchors.of_split("test")
    scores, red = model.score(taste(), test.queries, test.candidates), test.candidates % 2 == 0
    above = [(own[which][:, None] > own[~which]).mean() for own, which in zip(scores, red, strict=True)]
    assert np.mean(above) > 0.9
    ranking = model.predict(taste(), test.queries, 60, history_eligible=True)
    red = ranking.item % 2 == 0
    assert ranking.score[red].mean() > ranking.score[~red].mean() + 0.5


def test_samples_hold_the_answer_once_among_twenty(fitted: tuple[Workspace, InstructRec]) -> None:
    space, model = fitted
    decode = model.backbone.tokenizer.decode
    samples = model.samples(space, "instructrec")
    listed = 0
    for one in samples:
        begin = one.target.index(True)
        assert all(one.target[begin:])
        prompt, answer = decode(one.ids[:begin]), decode(one.ids[begin:])
        assert answer.startswith(" Red")
        assert answer.endswith("<|end|>")
        if "Candidates:" in prompt:
            listed += 1
            titles = prompt.split("Candidates:")[1].removesuffix(".<|end|>").split(";")
            assert len(titles) == 20
            assert titles.count(answer.removesuffix("<|end|>")) == 1
    assert 0.35 < listed / len(samples) < 0.65


def test_it_answers_alike_when_it_is_loaded(fitted: tuple[Workspace, InstructRec], tmp_path: Path) -> None:
    space, model = fitted
    model.save(tmp_path)
    loaded = InstructRec.load(tmp_path, space, "instructrec")
    few = space.prepared.anchors.of_split("test").select(np.arange(4))
    scores = [one.score(taste(), few.queries, few.candidates) for one in (model, loaded)]
    assert (scores[0] == scores[1]).all()


def test_a_log_without_titles_is_refused(tmp_path: Path) -> None:
    log = taste()
    space = space_of(log, TASTE_CUT, titles=list(log.item_ids), folder=tmp_path)
    with pytest.raises(NotApplicableError, match="titles"):
        InstructRec.fit(space, "instructrec")
