"""LC-Rec's alignment tasks: their samples as text, each checked against the log."""

from __future__ import annotations

import numpy as np
import pytest

from conrec.baselines.language.alignment import AlignmentTasks, descriptions_of
from conrec.logs.log import Log
from conrec.protocol import DAY, NEGATIVE, POSITIVE
from conrec.settings.baselines.language import LcRecConfig
from conrec.workspace import Workspace
from tests.baselines.language.worlds import backbone_of
from tests.baselines.worlds import space_of

TITLES = ["Heat", "Jaws", "Fargo", "Alien"]
KINDS = [["Crime", "Drama"], ["Horror"], ["Crime"], ["Horror", "Space"]]
TEXTS = ["Heat. Crime, Drama. Two men.", "Jaws. Horror. A shark.", "Fargo", "Alien. Horror, Space."]


def small() -> Log:
    """User 0 dislikes 1, likes 0, dislikes 3, likes 2; user 1 dislikes 0."""
    user, item = np.array([0, 0, 0, 0, 1]), np.array([1, 0, 3, 2, 0])
    days = np.array([1, 2, 3, 4, 2])
    names = tuple(f"i{one}" for one in range(4))
    return Log.from_columns(("a", "b"), names, user, item, days * DAY, np.array([-1, 1, -1, 1, -1]))


def world(titles: list[str] | None = None, kinds: list[list[str]] | None = None) -> Workspace:
    space = space_of(small(), 9 * DAY, titles=titles or TITLES, categories=kinds or KINDS)
    items = space.prepared.items
    at = items.schema.get_field_index("text")
    space.prepared = type(space.prepared)(
        space.prepared.log,
        items.set_column(at, items.schema.field("text"), [TEXTS]),
        space.prepared.anchors,
        space.prepared.periods,
        space.prepared.swing,
    )
    return space


def tasks_of(space: Workspace, signs: tuple[int, ...] = (NEGATIVE,), **settings: float) -> AlignmentTasks:
    prompts = space.prompts(backbone_of(space))
    context = "both" if POSITIVE in signs else "negative"
    return AlignmentTasks(space, prompts, context, signs, LcRecConfig(**settings))


@pytest.fixture(scope="module")
def space() -> Workspace:
    return world()


def said(tasks: AlignmentTasks, stretches: list) -> set[tuple[str, str]]:
    """Prompts and answers as text."""
    decode = tasks.prompts.backbone.tokenizer.decode
    found = set()
    for one in stretches:
        begin = one.target.index(True)
        assert all(one.target[begin:])
        found.add((decode(one.ids[:begin]), decode(one.ids[begin:])))
    return found


def sid(item: int) -> str:
    return f"<a_{item % 4}><b_{item // 4}><c_0>"


END = "<|end|>"


def test_descriptions_as_text(space: Workspace) -> None:
    found = said(tasks := tasks_of(space), tasks.descriptions(200, np.random.default_rng(0)))
    expected = set()
    for item, text in ((0, " Crime, Drama. Two men."), (1, " Horror. A shark."), (3, " Horror, Space.")):
        expected |= {
            (f"Which item is described as{text}{END}", sid(item)),
            (f"Which item has the title {TITLES[item]} described as{text}{END}", sid(item)),
            (f"What describes{sid(item)}{END}", f"{text}{END}"),
        }
    assert found == expected


def test_asymmetric_prediction_as_text(space: Workspace) -> None:
    found = said(tasks := tasks_of(space), tasks.asymmetric(100, np.random.default_rng(0)))
    title = "What is the title of what this user will not want next?"
    assert found == {
        (f"{title}<disliked>{sid(1)}<disliked>", f" Alien{END}"),
        ("What will this user not want next?<disliked> Jaws<disliked>", sid(3)),
    }


def test_both_signs_are_predicted_behind_their_sign(space: Workspace) -> None:
    tasks = tasks_of(space, (NEGATIVE, POSITIVE))
    found = said(tasks, tasks.asymmetric(300, np.random.default_rng(0)))
    start = "What will this user not want next?<disliked> Jaws"
    assert {pair for pair in found if pair[0].startswith("What will")} == {
        (f"{start}<liked>", sid(0)),
        (f"{start}<liked> Heat<disliked>", sid(3)),
        (f"{start}<liked> Heat<disliked> Alien<liked>", sid(2)),
    }


def test_intentions_as_text(space: Workspace) -> None:
    found = said(tasks := tasks_of(space), tasks.intentions(100, np.random.default_rng(0)))
    start = f"What of this kind will this user not want next? Horror, Space.{END}"
    instruction = start.removesuffix(f" Horror, Space.{END}")
    assert found == {
        (f"{start}<disliked>", sid(3)),
        (f"{start}<disliked>{sid(1)}<disliked>", sid(3)),
        (f"{instruction} Horror. A shark.{END}<disliked>", sid(1)),  # nothing was disliked before
        (f"{instruction} Crime, Drama. Two men.{END}<disliked>", sid(0)),
    }


def test_preferences_are_what_is_disliked_beyond_the_usual(space: Workspace) -> None:
    """Everybody's dislikes: Horror twice, Space, Crime and Drama once; his, after one dislike, Horror alone."""
    tasks = tasks_of(space, (NEGATIVE, POSITIVE))
    found = said(tasks, tasks.preferences(200, np.random.default_rng(0)))
    start = f"What does this user not want?<disliked>{sid(1)}"
    assert found == {
        (f"{start}{END}", f" Horror{END}"),
        (f"{start}<liked>{sid(0)}{END}", f" Horror{END}"),
        (f"{start}<liked>{sid(0)}<disliked>{sid(3)}{END}", f" Horror, Space{END}"),
    }


def test_shares_count_samples_and_0_leaves_a_task_out(space: Workspace) -> None:
    rng = np.random.default_rng(0)
    none = dict.fromkeys(("description_share", "asymmetric_share", "intention_share", "preference_share"), 0.0)
    assert tasks_of(space, **none).samples(40, rng) == []
    only = tasks_of(space, **{**none, "description_share": 0.5})
    assert len(only.samples(40, rng)) == 20
    few = tasks_of(space, (NEGATIVE, POSITIVE), **{**none, "asymmetric_share": 1.0, "task_events": 1})
    assert {text.count("<disliked>") + text.count("<liked>") for text, _ in said(few, few.samples(60, rng))} == {2}


@pytest.mark.parametrize("signs", [(NEGATIVE,), (NEGATIVE, POSITIVE)])
@pytest.mark.parametrize("n", [0, 1, 2, 37])
def test_a_task_gives_as_many_samples_as_it_is_asked_for(space: Workspace, signs: tuple[int, ...], n: int) -> None:
    """Though half of the events have no history, a quarter of the items no description, some histories no dislike."""
    tasks, rng = tasks_of(space, signs), np.random.default_rng(1)
    for task in (tasks.descriptions, tasks.asymmetric, tasks.intentions, tasks.preferences):
        assert len(task(n, rng)) == n


def test_events_come_once_before_they_come_again(space: Workspace) -> None:
    """Three dislikes of described items: three samples answer with all of them, whatever the order."""
    tasks = tasks_of(space)
    for seed in range(5):
        found = said(tasks, tasks.intentions(3, np.random.default_rng(seed)))
        assert {answer for _, answer in found} == {sid(0), sid(1), sid(3)}


def test_what_a_log_lacks_leaves_tasks_out() -> None:
    rng = np.random.default_rng(0)
    untitled = tasks_of(world(titles=[f"i{one}" for one in range(4)]))
    assert untitled.asymmetric(20, rng) == []
    assert tasks_of(world(kinds=[[] for _ in range(4)])).preferences(20, rng) == []


def test_nothing_of_the_validation_period_is_learned() -> None:
    space = world()
    cut = 3 * DAY
    space.prepared = type(space.prepared)(
        space.prepared.log,
        space.prepared.items,
        space.prepared.anchors,
        type(space.prepared.periods)(cut, cut + DAY, 9 * DAY),
        space.prepared.swing,
    )
    tasks = tasks_of(space, (NEGATIVE, POSITIVE))
    found = said(tasks, tasks.samples(400, np.random.default_rng(0)))
    assert not [text for pair in found for text in pair if sid(3) in text or "Alien" in text]


def test_descriptions_are_what_stands_behind_the_title() -> None:
    texts = ["Heat (1995). Crime.", "Other text", None, "Heat: a film", "Heat (1995)"]
    assert descriptions_of(["Heat (1995)", "Heat", "Heat", "Heat", "Heat (1995)"], texts) == [
        "Crime.", "Other text", "", "a film", "",
    ]  # fmt: skip
