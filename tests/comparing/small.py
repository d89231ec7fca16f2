"""A cut of MovieLens-100K and settings with which a run of a few rows takes seconds: no text encoder, no networks."""

from __future__ import annotations

from pathlib import Path

from conrec.artefacts import write_json
from conrec.baselines.registry import REGISTRY
from conrec.config import load_config
from conrec.logs.sources import Loaded
from conrec.rows import rows_of
from conrec.workspace import Workspace
from tests.small_run import write_small_log

TOML = """
[data]
source = "table"
events = "events.csv"
items = "items.csv"

[data.columns]
feedback = "feedback"

[data.item_columns]
category = "genres"

[run]
threads = 1
conrec = false

[encoder]
text_weight = 0.0

[encoder.collaborative]
negative_weight = 1.0
positive_weight = 1.0
dim = 8

[rqvae]
method = "residual_kmeans"
latent_dim = 8

[baselines]
rows = ["most-disliked", "live-popularity", "sasrec"]

[baselines.sasrec]
epochs = 2
hidden_size = 8

[evaluation]
bootstraps = 50

[filter]
models = []
"""


def write_small(loaded: Loaded, folder: Path, users: int = 60) -> Path:
    """Write events.csv, items.csv and small.toml; the path of small.toml."""
    write_small_log(loaded, folder, users)
    (folder / "small.toml").write_text(TOML)
    return folder / "small.toml"


def write_manifests(run: Path) -> None:
    """The manifests of a finished run's rows, with the settings that its stages would write down."""
    config = load_config(file=run / "config.toml")
    space = Workspace(run, config)
    for row in rows_of(config):
        sections = REGISTRY[row].sections if row in REGISTRY else ("sft", "backbone")
        write_json(run / "models" / f"{row}.train.json", {"settings": space.section(*sections, "protocol")})
        write_json(run / "predictions" / f"{row}.manifest.json", {"settings": space.section("prediction", "protocol")})
