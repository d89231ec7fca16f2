"""Prompts: their text as it is, what each context shows, and that training sees what prediction sees."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from conrec.config import PromptConfig
from conrec.llm.prompts import PromptBuilder, answered
from conrec.llm.samples import history_stretches
from conrec.protocol import DAY, NEGATIVE, NEUTRAL, POSITIVE


def text(prompts, ids):
    return prompts.backbone.tokenizer.decode(ids)


def sid(codes, item):
    return "".join(f"<{letter}_{code}>" for letter, code in zip("abc", codes[item], strict=True))


def test_next_negative_prompt_as_text(prompts, codes, log):
    end = int(log.timestamp[-1]) + 1
    events = log.history(2, end)
    shown = [event for event in events if log.feedback[event] != NEUTRAL][-12:]
    signs = {NEGATIVE: "<disliked>", POSITIVE: "<liked>"}
    expected = "What will this user not want next?"
    expected += "".join(signs[int(log.feedback[event])] + sid(codes, log.item[event]) for event in shown)
    assert text(prompts, prompts.next_negative(log, 2, end, "both")) == expected + "<disliked>"


def test_choice_prompt_as_text(prompts, codes):
    expected = "Which of these four did the user not want?" + "".join(sid(codes, item) for item in (4, 1, 7, 0))
    assert text(prompts, prompts.choice([4, 1, 7, 0])) == expected + "<disliked>"


def test_translation_prompts_as_text(prompts, codes):
    assert text(prompts, prompts.to_sid("Film 3")) == "Which item has the title Film 3<|end|>"
    assert text(prompts, prompts.to_title(5)) == f"What is the title of{sid(codes, 5)}<|end|>"
    assert text(prompts, prompts.title_answer("Film 3")) == " Film 3<|end|>"


def test_titles_of_any_script_can_be_written(backbone, codes):
    prompts = PromptBuilder(backbone, codes, PromptConfig(title_tokens=100))
    for title in ("Amélie", "千と千尋の神隠し", "🎬🍿", "", 'a\nb\t"c"'):
        assert text(prompts, prompts.title_answer(title)[:-1]) == " " + title


@pytest.mark.parametrize("context", ["recent", "negative", "both"])
def test_contexts_show_only_what_is_strictly_earlier(prompts, log, context):
    for user in range(6):
        for event in log.events_of(user)[::7]:
            time = int(log.timestamp[event])
            shown = prompts.select(log, user, time, context)
            assert (log.timestamp[shown] < time).all()
            assert (np.diff(shown) > 0).all()
            assert (log.user[shown] == user).all()
            if context != "both":
                assert (log.feedback[shown] == NEGATIVE).all()
            if context == "recent":
                assert (log.timestamp[shown] >= time - 3 * DAY).all()
            assert (log.feedback[shown] != NEUTRAL).all()


def test_the_oldest_history_is_dropped_first(backbone, codes, log):
    short = PromptBuilder(backbone, codes, PromptConfig(max_events=3))
    long = PromptBuilder(backbone, codes, PromptConfig(max_events=100))
    end = int(log.timestamp[-1]) + 1
    assert short.select(log, 1, end, "both").tolist() == long.select(log, 1, end, "both")[-3:].tolist()


@pytest.mark.parametrize("context", ["negative", "both"])
def test_a_stretch_trains_what_a_prompt_asks(backbone, codes, log, context):
    """Up to each trained item, a stretch is the prompt of that item's time followed by its SID."""
    prompts = PromptBuilder(backbone, codes, PromptConfig(max_events=100))
    end = int(log.timestamp[-1]) + 1
    trained = set()
    for stretch in history_stretches(prompts, log, end, context, np.random.default_rng(0)):
        places = [place for place, target in enumerate(stretch.target) if target]
        for begin in places[::3]:
            trained.add((tuple(stretch.ids[:begin]), tuple(stretch.ids[begin : begin + 3])))
    expected = {
        (
            tuple(prompts.next_negative(log, int(log.user[event]), int(log.timestamp[event]), context)),
            tuple(prompts.sid(int(log.item[event]))),
        )
        for event in np.flatnonzero(log.feedback == NEGATIVE)
    }
    assert trained == expected


@pytest.mark.parametrize("size", [1, 2, 5, 12])
@pytest.mark.parametrize("context", ["negative", "both"])
def test_every_negative_is_trained_once(backbone, codes, log, size, context):
    prompts = PromptBuilder(backbone, codes, PromptConfig(max_events=size))
    end = int(np.quantile(log.timestamp, 0.7))
    stretches = history_stretches(prompts, log, end, context, np.random.default_rng(0))
    before = log.timestamp < end
    assert sum(sum(one.target) for one in stretches) == 3 * int((log.feedback[before] == NEGATIVE).sum())
    assert max(len(one.ids) for one in stretches) <= len(prompts.next_negative(log, 5, 0, "both")) - 1 + 4 * size
    both = history_stretches(prompts, log, end, "both", np.random.default_rng(0), (NEGATIVE, POSITIVE))
    assert sum(sum(one.target) for one in both) == 3 * int((log.feedback[before] != NEUTRAL).sum())


@pytest.mark.parametrize("context", ["negative", "both"])
def test_of_events_of_one_second_each_has_its_turn_and_none_sees_another(backbone, codes, log, context):
    """With shared seconds, too, everything that is trained is the answer to a prompt of its time."""
    prompts = PromptBuilder(backbone, codes, PromptConfig(max_events=100))
    coarse = replace(log, timestamp=log.timestamp // (5 * DAY) * (5 * DAY))
    end = int(coarse.timestamp[-1]) + 1
    asked = {}
    for event in np.flatnonzero(coarse.feedback == NEGATIVE):
        prompt = prompts.next_negative(coarse, int(coarse.user[event]), int(coarse.timestamp[event]), context)
        asked.setdefault((len(prompt), frozenset(_signed(prompt))), set()).add(
            tuple(prompts.sid(int(coarse.item[event])))
        )
    trained = {key: set() for key in asked}
    for seed in range(60):
        for stretch in history_stretches(prompts, coarse, end, context, np.random.default_rng(seed)):
            places = [place for place, target in enumerate(stretch.target) if target]
            for begin in places[::3]:
                key = (begin, frozenset(_signed(stretch.ids[:begin])))
                answer = tuple(stretch.ids[begin : begin + 3])
                assert answer in asked[key]
                trained[key].add(answer)
    assert trained == asked


def _signed(prompt):
    """The signed items of a prompt, whose order within a second is free."""
    body = prompt[:-1][-4 * ((len(prompt) - 1) // 4) :]
    return {tuple(body[place : place + 4]) for place in range(len(body) % 4, len(body), 4)}


def test_only_the_answer_is_trained():
    assert answered([1, 2], [3, 4, 5]).target == [False, False, True, True, True]
