"""What a rollout is worth: the rewards of Progressive GRPO on rebuilt embeddings, and those of plain hits."""

from conrec.llm.rewards.build import reward_of
from conrec.llm.rewards.coverage import CoverageReward
from conrec.llm.rewards.future import FutureReward
from conrec.llm.rewards.hits import HitRankReward, PrefixReward
from conrec.llm.rewards.protocol import Reward
from conrec.llm.rewards.similarity import Similarity, hub_means

__all__ = [
    "CoverageReward",
    "FutureReward",
    "HitRankReward",
    "PrefixReward",
    "Reward",
    "Similarity",
    "hub_means",
    "reward_of",
]
