"""Prompts over titles: their text as it is, and that they show what is strictly earlier."""

from __future__ import annotations

import numpy as np
import pytest

from conrec.baselines.language.titles import TitlePrompts, has_titles, require_titles
from conrec.errors import NotApplicableError
from conrec.logs.log import Log
from conrec.protocol import DAY
from tests.baselines.language.worlds import backbone_of
from tests.baselines.worlds import space_of

TITLES = ["Heat (1995)", "Jaws", "Fargo", "Alien; or: not", "Brazil", "Amélie"]


def small() -> Log:
    """One user: dislikes 0 and 1, likes 2, is neutral to 3, dislikes 4 at the last second; another without events."""
    items, feedback = np.array([0, 2, 3, 1, 4]), np.array([-1, 1, 0, -1, -1])
    ids = tuple(f"i{item}" for item in range(6))
    return Log.from_columns(("a", "b"), ids, np.zeros(5, int), items, np.arange(1, 6) * DAY, feedback)


@pytest.fixture(scope="module")
def prompts() -> TitlePrompts:
    return TitlePrompts(backbone_of(space_of(small(), 3 * DAY, titles=TITLES)), TITLES, history=10, title_tokens=40)


def text(prompts: TitlePrompts, ids: list[int]) -> str:
    return str(prompts.backbone.tokenizer.decode(ids))


def test_pointwise_prompt_as_text(prompts: TitlePrompts) -> None:
    asked = prompts.pointwise(small(), 0, 5 * DAY)
    assert text(prompts, [*asked, *prompts.title(4)]) == (
        "Will this user dislike the item? Disliked: Heat (1995); Jaws. Liked: Fargo. Item: Brazil<|end|>"
    )


def test_choice_prompt_as_text(prompts: TitlePrompts) -> None:
    assert text(prompts, prompts.choice(small(), 0, 4 * DAY, [4, 3, 5])) == (
        "Which of these will this user dislike next? Disliked: Heat (1995). Liked: Fargo."
        " Candidates: Brazil; Alien; or: not; Amélie.<|end|>"
    )


def test_matching_prompt_as_text(prompts: TitlePrompts) -> None:
    assert text(prompts, prompts.matching(small(), 0, 2 * DAY)) == (
        "What will this user dislike next? Disliked: Heat (1995).<|end|>"
    )
    assert text(prompts, prompts.matching(small(), 1, 9 * DAY)) == "What will this user dislike next?<|end|>"


def test_the_latest_titles_of_each_sign_are_shown(prompts: TitlePrompts) -> None:
    short = TitlePrompts(prompts.backbone, TITLES, history=1, title_tokens=40)
    assert text(prompts, short.matching(small(), 0, 9 * DAY)) == (
        "What will this user dislike next? Disliked: Brazil. Liked: Fargo.<|end|>"
    )


def test_long_titles_are_cut_and_still_end(prompts: TitlePrompts) -> None:
    cut = TitlePrompts(prompts.backbone, ["A very long title that goes on and on"], history=1, title_tokens=3)
    assert len(cut.title(0)) == 4
    assert cut.title(0)[-1] == prompts.backbone.end


def test_yes_and_no_begin_differently(prompts: TitlePrompts) -> None:
    assert prompts.yes != prompts.no
    prompts.require_answers()
    assert text(prompts, [prompts.yes])[0] == "Y"
    assert text(prompts, [prompts.no])[0] == "N"


def test_a_log_without_titles_is_refused() -> None:
    log = small()
    with pytest.raises(NotApplicableError, match="no item of this log has one"):
        require_titles(space_of(log, 3 * DAY, titles=list(log.item_ids)))
    assert not has_titles(space_of(log, 3 * DAY, titles=[""] * 6))
    require_titles(space_of(log, 3 * DAY, titles=["", "", "Fargo", "", "", ""]))
