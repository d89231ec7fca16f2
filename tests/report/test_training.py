"""What the page says of the reward is what the run was paid by."""

from __future__ import annotations

import pytest

from conrec.config import GrpoConfig
from conrec.report.training import reward_in_words


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {},
            "the similarity to what the user will dislike less the weighted similarity to what he will like, on "
            "embeddings rebuilt from the codebooks",
        ),
        (
            {"reward": "negatives_cut", "reward_cutoff": 0.7},
            "the similarity to what the user will dislike, on embeddings rebuilt from the codebooks, each counted "
            "where it exceeds 0.7",
        ),
        (
            {"reward": "prefix", "coverage": 2.0, "hub_corrected": True},
            "1 for three codes in common with what the user will dislike, 0.1 for two and 0.01 for one, similarities "
            "less each item's mean similarity, and 2 times what an item adds to its group's coverage",
        ),
    ],
)
def test_the_reward_in_words(settings, said):
    assert reward_in_words(GrpoConfig(**settings)) == said
