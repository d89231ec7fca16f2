"""The reward that the settings ask for."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor

from conrec.arrays import Array
from conrec.config import GrpoConfig
from conrec.items.trie import Trie
from conrec.llm.rewards.coverage import CoverageReward
from conrec.llm.rewards.future import FutureReward
from conrec.llm.rewards.hits import PrefixReward
from conrec.llm.rewards.protocol import Reward
from conrec.llm.rewards.similarity import Similarity, hub_means

__all__ = ["reward_of"]


def reward_of(
    config: GrpoConfig, rebuilt: Float[Tensor, "items d"], trie: Trie, trained: Bool[Array, " items"]
) -> Reward:
    """The reward of the stages of Progressive GRPO, see `GrpoConfig.reward`.

    Args:
        config: kind, gamma, cut-off, correction for hubs and weight of the coverage.
        rebuilt: rebuilt embeddings, unit rows.
        trie: semantic IDs of the same items.
        trained: items of the training period, over which mean similarities are taken.
    """
    similarity = Similarity(rebuilt, hub_means(rebuilt, trained) if config.hub_corrected else None)
    reward: Reward
    if config.reward == "prefix":
        reward = PrefixReward(trie)
    else:
        penalty = config.penalty if config.reward in ("penalised", "penalised_cut") else 0.0
        cutoff = config.reward_cutoff if config.reward in ("negatives_cut", "penalised_cut") else None
        reward = FutureReward(similarity, penalty, cutoff)
    return CoverageReward(reward, similarity, config.coverage) if config.coverage else reward
