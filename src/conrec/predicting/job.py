"""What is to be predicted with which run, and what of it cannot be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

from conrec.baselines.registry import counted, generative
from conrec.config import Config, load_config
from conrec.errors import ArtefactError, ConfigError, MissingExtraError, NotApplicableError, did_you_mean
from conrec.evaluation.predictions import why_unranked
from conrec.pipeline import skipped
from conrec.predicting.times import far_ahead
from conrec.rows import REFERENCE, rows_of

__all__ = ["ENGINES", "PredictJob", "check", "refuse_unranked", "resolved"]

ENGINES = ("transformers", "vllm")
"""What runs the language model: our own token tree, or vLLM (extra ``vllm``)."""
OVERRIDABLE = ("data", "run")
"""Sections of the configuration that a job may set: how newer events are written, and the machine."""
ANOTHER = "Ask another row of the run."


@dataclass(frozen=True)
class PredictJob:
    """What is predicted with: plain values, so that it can be sent to another machine that sees the same files.

    Attributes:
        run_folder: a run in which this row is trained.
        model: a row of the run's table.
        k: size of the predict sets.
        at: time of questions that have none of their own; None: the end of the log.
        events: newer events to take histories from, see `conrec.predicting.histories`.
        items: the items that may be predicted, see `conrec.predicting.pool`; None: the whole catalogue.
        overrides: nested settings of ``data`` (how ``events`` is read) and ``run`` (threads, device, precision).
        batch_size: prompts read at a time; None: as the run has it.
        engine: one of `ENGINES`.
    """

    run_folder: Path
    model: str = REFERENCE
    k: int = 50
    at: int | None = None
    events: Path | None = None
    items: Path | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    batch_size: int | None = None
    engine: str = "transformers"


def resolved(job: PredictJob) -> Config:
    """The run's configuration with the overrides of the job.

    Raises:
        ArtefactError: there is no run.
        ConfigError: an override is none that a job may set, or has no such value.
    """
    if not (job.run_folder / "config.toml").is_file():
        raise ArtefactError("there is no run here", where=str(job.run_folder), expected="a folder of `conrec run`")
    for section in job.overrides:
        if section not in OVERRIDABLE:
            raise ConfigError(
                f"{section!r} belongs to the trained run",
                where="--set",
                expected="only " + " and ".join(f"{one}.…" for one in OVERRIDABLE),
                mend="Train another run for other settings.",
            )
    values: dict[str, Any] = dict(job.overrides)
    if job.batch_size is not None:
        values["prediction"] = {"batch_size": job.batch_size}
    return load_config(file=job.run_folder / "config.toml", overrides=values)


def check(job: PredictJob, config: Config) -> None:
    """Refuse before anything is loaded what cannot be answered.

    Raises:
        ConfigError: a value of the job does not fit the run.
        ArtefactError: the row is not trained yet.
        MissingExtraError: vLLM is asked for and not installed.
        NotApplicableError: the log of the run does not allow the row, or the row ranks no catalogue.
    """
    rows = rows_of(config)
    if job.model not in rows:
        raise ConfigError(
            f"there is no row {job.model!r} in this run", where="--model", mend=did_you_mean(job.model, rows)
        )
    if job.k < 1:
        raise ConfigError(f"k = {job.k}", where="--k", expected="at least 1")
    wrong = "" if job.at is None else far_ahead(job.at)
    if wrong:
        raise ConfigError(f"{job.at} {wrong}", where="at", expected="seconds since 1970 UTC")
    if job.engine not in ENGINES:
        raise ConfigError(
            f"there is no engine {job.engine!r}", where="--engine", mend=did_you_mean(job.engine, ENGINES)
        )
    if job.items is not None and not generative(job.model):
        raise ConfigError(
            f"{job.model!r} is no language model and knows no live items", where="--items", mend="Leave --items away."
        )
    if job.engine == "vllm" and not generative(job.model):
        raise ConfigError(f"{job.model!r} is no language model", where="--engine", mend="Leave --engine away.")
    if job.engine == "vllm" and config.prediction.normalise != "allowed":
        raise ConfigError(
            "vLLM answers with probabilities over allowed codes only", where="prediction.normalise", expected="allowed"
        )
    if job.engine == "vllm" and find_spec("vllm") is None:
        raise MissingExtraError("vllm", "vllm")
    if why := skipped(job.run_folder / "models" / f"{job.model}.train.json"):
        raise NotApplicableError(f"the row {job.model!r} was left out of this run ({why})", mend=ANOTHER)
    if why := why_unranked(job.run_folder / "predictions" / f"{job.model}.parquet"):
        refuse_unranked(job.model, why)
    if not counted(job.model) and not (job.run_folder / "models" / job.model / "model").exists():
        raise ArtefactError(
            f"the row {job.model!r} is not trained yet",
            where=str(job.run_folder / "models"),
            mend="Give the command of the run again: it continues.",
        )


def refuse_unranked(name: str, why: str) -> NoReturn:
    """Refuse to predict with a row that only scores candidates: its predict sets would all be empty.

    Raises:
        NotApplicableError: always.
    """
    raise NotApplicableError(f"the row {name!r} ranks no catalogue ({why})", mend=ANOTHER)
