"""One run folder a seed, and what makes several of them one table: the same data, the same settings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from conrec.config import Config, load_config
from conrec.errors import ArtefactError, ConfigError

__all__ = ["SEEDS", "configs_of", "flat", "parse_seeds", "seed_config", "seed_folder", "seeds_in"]

SEEDS = (0, 1, 2)
"""Seeds of a table, where nothing else is asked for."""
_FOLDER = re.compile(r"seed-(-?\d+)")
_OWN = (("run", "seed"), ("encoder", "cache"))
"""Keys in which the runs of one table may differ: neither says what is compared."""


def parse_seeds(text: str) -> tuple[int, ...]:
    """The seeds of a list with commas, in the order given.

    Raises:
        ConfigError: one is no whole number, or is there twice.

    >>> parse_seeds("0, 1,7")
    (0, 1, 7)
    """
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        if not re.fullmatch(r"-?\d+", part):
            raise ConfigError(f"{part!r} is no seed", where="--seeds", expected="whole numbers, for instance 0,1,2")
    seeds = tuple(int(part) for part in parts)
    twice = next((seed for place, seed in enumerate(seeds) if seed in seeds[:place]), None)
    if twice is not None:
        raise ConfigError(f"the seed {twice} is there twice", where="--seeds", expected="each seed once")
    return seeds


def seed_folder(out: Path, seed: int) -> Path:
    """The run folder of a seed."""
    return out / f"seed-{seed}"


def seed_config(config: Config, out: Path, seed: int) -> Config:
    """The configuration of a seed's run; embeddings of items are kept once for all seeds."""
    run = config.run.model_copy(update={"seed": seed})
    encoder = config.encoder.model_copy(update={"cache": config.encoder.cache or (out / "cache").resolve()})
    return config.model_copy(update={"run": run, "encoder": encoder})


def seeds_in(out: Path) -> tuple[int, ...]:
    """Seeds whose run folders are in ``out``, in order of number.

    Raises:
        ArtefactError: there is none.
    """
    found = [_FOLDER.fullmatch(path.parent.name) for path in out.glob("seed-*/config.toml")]
    seeds = sorted(int(one.group(1)) for one in found if one)
    if not seeds:
        raise ArtefactError(
            "holds no run of a seed",
            where=str(out),
            expected="folders seed-0, seed-1, … as `conrec baselines run` makes them",
            mend="Give the folder that was its --out.",
        )
    return tuple(seeds)


def configs_of(out: Path, seeds: Iterable[int]) -> list[Config]:
    """The configuration of each seed's run.

    Raises:
        ArtefactError: a run is missing, or two of them were made with other settings than their seeds.
    """
    folders = [seed_folder(out, seed) for seed in seeds]
    for folder in folders:
        if not (folder / "config.toml").is_file():
            raise ArtefactError(
                "this run has not begun", where=str(folder), mend="Give the command of `conrec baselines run` again."
            )
    configs = [load_config(file=folder / "config.toml") for folder in folders]
    first = _compared(configs[0])
    for folder, config in zip(folders[1:], configs[1:], strict=True):
        other = _compared(config)
        different = next((key for key in sorted({*first, *other}) if first.get(key) != other.get(key)), None)
        if different is not None:
            raise ArtefactError(
                f"{different} is {other.get(different)!r} here and {first.get(different)!r} in {folders[0].name}",
                where=str(folder / "config.toml"),
                expected="runs that differ in their seed alone",
                mend="Finish `conrec baselines run` with one configuration for all seeds, or give another --out.",
            )
    return configs


def _compared(config: Config) -> dict[str, Any]:
    """Every setting that the runs of a table share, by dotted key."""
    values = config.model_dump(mode="json")
    for section, key in _OWN:
        values[section].pop(key)
    return dict(flat(values))


def flat(values: Mapping[str, Any], parents: Sequence[str] = ()) -> Iterable[tuple[str, Any]]:
    """The values of nested sections by dotted key."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from flat(value, (*parents, key))
        else:
            yield ".".join((*parents, key)), value
