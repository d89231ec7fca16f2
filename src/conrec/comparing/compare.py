"""The table with one call: a run for each seed, one after the other, and what they say together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from conrec.comparing.describe import known_row
from conrec.comparing.seeds import seed_config, seed_folder
from conrec.comparing.table import make_table
from conrec.config import Config, load_config
from conrec.errors import ConfigError
from conrec.progress import console, speaks
from conrec.rows import BASELINES, REFERENCE
from conrec.run import execute

__all__ = ["choose_rows", "compare"]


def choose_rows(config: Config, *, every: bool = False, rows: str | None = None, conrec: bool = True) -> Config:
    """The configuration that trains the rows that are asked for.

    Args:
        config: whose own rows are kept where nothing is asked for.
        every: all baselines, and CoNRec.
        rows: names with commas in between; ``conrec`` is CoNRec with all of its stages.
        conrec: false: CoNRec is left out.

    Raises:
        ConfigError: a row is unknown, or two wishes contradict each other.
    """
    if every and rows is not None:
        raise ConfigError("--all and --rows exclude each other", mend="Give one of them.")
    chosen, ours = config.baselines.rows, config.run.conrec and conrec
    if every:
        chosen, ours = BASELINES, conrec
    elif rows is not None:
        asked = [name for part in rows.split(",") if (name := part.strip())]
        if not asked:
            raise ConfigError("names no row", where="--rows", expected="names with commas in between")
        if REFERENCE in asked and not conrec:
            raise ConfigError(f"--rows asks for {REFERENCE}, and --without-conrec leaves it out")
        ours = REFERENCE in asked
        chosen = tuple(known_row(name, "--rows") for name in dict.fromkeys(asked) if name != REFERENCE)
    baselines = config.baselines.model_copy(update={"rows": tuple(name for name in BASELINES if name in chosen)})
    return config.model_copy(update={"baselines": baselines, "run": config.run.model_copy(update={"conrec": ours})})


def compare(config: Config, out: Path, seeds: Sequence[int], reference: str | None = None) -> dict[str, Any]:
    """Run the chain once for each seed, and make the table of all of them.

    What is finished already is not done again, so that the same call goes on after a kill.

    Args:
        config: of all runs; its own seed is not used.
        out: gets ``seed-S`` for each seed, the embeddings that they share, and the table.
        seeds: S seeds.
        reference: row that every other one is compared with, see `conrec.comparing.table.make_table`.

    Returns:
        What ``OUT/table.json`` holds.

    Raises:
        ConrecError: anything that the user can mend.
    """
    for seed in seeds:
        before = seed_folder(out, seed) / "config.toml"
        if before.is_file() and load_config(file=before).data != config.data:
            raise ConfigError(
                "these runs were made from other data", where=str(out), mend="Give another --out, or remove the folder."
            )
    for number, seed in enumerate(seeds, start=1):
        console.print(f"seed {seed}, run {number} of {len(seeds)}: {seed_folder(out, seed)}", highlight=False)
        execute(seed_config(config, out, seed), seed_folder(out, seed))
    return make_table(out, seeds, reference) if speaks() else {}
