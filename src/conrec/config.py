"""The one configuration of a run: frozen pydantic models, TOML files and presets by size.

Layers, later over earlier: the defaults below, the preset, the TOML file, the command's options.
Where a default is the paper's (CoNRec, arXiv 2601.15721), its text says so; every other one is ours.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import tomli_w
from pydantic import BaseModel, ValidationError, model_validator

from conrec.errors import ConfigError, did_you_mean
from conrec.settings.base import Settings, as_toml
from conrec.settings.baselines import BaselinesConfig
from conrec.settings.data import (
    CandidatesConfig,
    CleaningConfig,
    DataConfig,
    EventColumns,
    FeedbackRule,
    ItemColumns,
    ProtocolConfig,
    SwingConfig,
)
from conrec.settings.engine import EngineConfig
from conrec.settings.filtering import FilterConfig
from conrec.settings.items import CollaborativeConfig, EncoderConfig, ImageConfig, RqVaeConfig, SemanticIdsConfig
from conrec.settings.models import (
    AlignmentConfig,
    BackboneConfig,
    Context,
    GrpoConfig,
    GrpoStageConfig,
    PromptConfig,
    SftConfig,
    TranslationConfig,
)
from conrec.settings.outcome import EvaluationConfig, PredictionConfig, RunConfig
from conrec.settings.search import SearchConfig

__all__ = [
    "PRESETS",
    "AlignmentConfig",
    "BackboneConfig",
    "BaselinesConfig",
    "CandidatesConfig",
    "CleaningConfig",
    "CollaborativeConfig",
    "Config",
    "Context",
    "DataConfig",
    "EncoderConfig",
    "EngineConfig",
    "EvaluationConfig",
    "EventColumns",
    "FeedbackRule",
    "FilterConfig",
    "GrpoConfig",
    "GrpoStageConfig",
    "ImageConfig",
    "ItemColumns",
    "PredictionConfig",
    "PromptConfig",
    "ProtocolConfig",
    "RqVaeConfig",
    "RunConfig",
    "SearchConfig",
    "SemanticIdsConfig",
    "SftConfig",
    "SwingConfig",
    "TranslationConfig",
    "dump_config",
    "load_config",
]  # fmt: skip


class Config(Settings):
    """Everything a run depends on."""

    run: RunConfig = RunConfig()
    data: DataConfig = DataConfig()
    engine: EngineConfig = EngineConfig()
    protocol: ProtocolConfig = ProtocolConfig()
    swing: SwingConfig = SwingConfig()
    candidates: CandidatesConfig = CandidatesConfig()
    encoder: EncoderConfig = EncoderConfig()
    rqvae: RqVaeConfig = RqVaeConfig()
    semantic_ids: SemanticIdsConfig = SemanticIdsConfig()
    backbone: BackboneConfig = BackboneConfig()
    prompts: PromptConfig = PromptConfig()
    translation: TranslationConfig = TranslationConfig()
    alignment: AlignmentConfig = AlignmentConfig()
    sft: SftConfig = SftConfig()
    grpo: GrpoConfig = GrpoConfig()
    prediction: PredictionConfig = PredictionConfig()
    baselines: BaselinesConfig = BaselinesConfig()
    search: SearchConfig = SearchConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    filter: FilterConfig = FilterConfig()

    @model_validator(mode="after")
    def _fits_together(self) -> Config:
        ranks = self.prediction.top_k
        if self.evaluation.top_k > ranks:
            raise ValueError(f"evaluation.top_k {self.evaluation.top_k} needs more than prediction.top_k {ranks} ranks")
        if self.prediction.predict_set > ranks:
            raise ValueError(f"prediction.predict_set {self.prediction.predict_set} exceeds prediction.top_k {ranks}")
        backbone = self.backbone
        if backbone.hidden_size % backbone.heads or backbone.heads % backbone.key_value_heads:
            raise ValueError("backbone.heads must divide backbone.hidden_size, and key_value_heads must divide heads")
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
    # The paper's sizes; its rank is not published. Weights are held in float32, which is 59 GB before activations.
    "paper": {
        "rqvae": {"codebook_size": 8192},
        "backbone": {"name": "Qwen/Qwen3-14B", "lora": {"rank": 16}},
        "prompts": {"max_events": 200},
        "alignment": {"samples": 4_000_000},
        "grpo": {"stages": [{"context": one, "samples": 100_000} for one in ("recent", "negative", "both")]},
        "run": {"device": "cuda"},
    },
}
"""Overrides by size: `tiny` runs on two cores in minutes, `paper` has the paper's sizes."""

_PATHS = (
    (("data",), ("folder", "events", "items", "cache")),
    (("encoder",), ("cache",)),
    (("encoder", "image"), ("folder",)),
)
"""Sections that name files and folders, and their keys."""


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
    """The resolved configuration as TOML; keys whose value is None by default are left out."""
    return tomli_w.dumps(_without_none(as_toml(config)))


def _absolute(values: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """The same values with the paths of `_PATHS` made absolute, relative ones below ``base``."""
    result = dict(values)
    for section, keys in _PATHS:
        inner: Any = result
        for name in section:
            inner = inner.get(name) if isinstance(inner, Mapping) else None
        if not isinstance(inner, Mapping):
            continue
        changed: dict[str, Any] = {
            key: str((base / Path(inner[key]).expanduser()).resolve())
            for key in keys
            if isinstance(inner.get(key), (str, Path))
        }
        for name in reversed(section):
            changed = {name: changed}
        result = _merged(result, changed)
    return result


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
        mend = _moved(path) or did_you_mean(path[-1], _keys_beside(path))
        return ConfigError(f"there is no key {key!r}", where=where, mend=mend)
    if not key or first["type"] == "value_error":
        return ConfigError(first["msg"].removeprefix("Value error, "), where=f"{where}, {key}" if key else where)
    return ConfigError(f"{key} = {first['input']!r} does not fit", where=where, expected=first["msg"])


def _moved(path: list[str]) -> str:
    """Where a section of a baseline stands now that once stood by itself, a sentence; empty for any other key."""
    if len(path) > 1 or path[0] in Config.model_fields:
        return ""
    sections = [name for name, field in BaselinesConfig.model_fields.items() if isinstance(field.default, Settings)]
    found = [name for name in sections if name == path[0]] or [
        name for name in sections if name.startswith(f"{path[0]}_")
    ]
    return "It is now " + " and ".join(f"[baselines.{name}]" for name in found) + "." if found else ""


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
