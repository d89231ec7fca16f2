"""A small cut of MovieLens-100K as anybody's own files, and a configuration that runs the chain on it in a minute."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc

from conrec.logs.sources import Loaded

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
seed = {seed}

[rqvae]
epochs = 4
hidden_dims = [64]
latent_dim = 16

[backbone]
hidden_size = 32
layers = 2
heads = 2
key_value_heads = 1
intermediate_size = 64
vocabulary = 600

[prompts]
max_events = 16

[translation]
epochs = 1

[alignment]
samples = 320
held_out = 60

[sft]
epochs = 1
evaluations = 2

[baselines.lc_rec_negatives]
epochs = 1

[baselines.lc_rec_both]
epochs = 1

[baselines.sasrec]
epochs = 2
hidden_size = 16

[grpo]
group_size = 4
evaluations = 2
stages = [
    {{context = "recent", samples = 64}},
    {{context = "negative", samples = 64}},
    {{context = "both", samples = 64}},
]

[evaluation]
bootstraps = 200
"""


def write_small_log(loaded: Loaded, folder: Path, users: int = 250, seed: int = 0) -> Path:
    """Write events.csv, items.csv and run.toml of the ``users`` with the latest events; the path of run.toml."""
    events = loaded.events
    user = np.asarray(events["user_id"].to_pylist())
    time = events["timestamp"].to_numpy()
    names, first = np.unique(user, return_inverse=True)
    latest = np.zeros(len(names), dtype=np.int64)
    np.maximum.at(latest, first, time)
    # Every second of the users who are there at the end, so that all three periods hold anchors.
    kept = names[np.argsort(-latest, kind="stable")][: 2 * users : 2]
    events = events.filter(pa.array(np.isin(user, kept)))
    items = loaded.items.filter(pa.array(np.isin(loaded.items["item_id"].to_pylist(), events["item_id"].to_pylist())))
    genres = ["|".join(row or ()) for row in items["category"].to_pylist()]
    pc.write_csv(events.select(["user_id", "item_id", "timestamp", "feedback"]), folder / "events.csv")
    table = pa.table({"item_id": items["item_id"], "title": items["title"], "genres": genres})
    pc.write_csv(table, folder / "items.csv")
    (folder / "run.toml").write_text(TOML.format(seed=seed))
    return folder / "run.toml"
