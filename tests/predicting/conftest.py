"""A run with models that were never trained: prediction in bulk does not depend on what they have learned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from conrec.artefacts import write_tensors, write_text
from conrec.baselines.sequential.sasrec import Sasrec, SasrecNetwork
from conrec.config import dump_config, load_config
from conrec.filtering.calibrating.threshold import Threshold, write_threshold
from conrec.filtering.catalogue import FilterCatalogue
from conrec.items.semantic_ids import SemanticIds, write_semantic_ids
from conrec.items.space import TRIE
from conrec.items.trie import Trie
from conrec.items.trie_file import save_trie
from conrec.llm.backbone import build_backbone
from conrec.llm.prompts import INSTRUCTIONS
from conrec.logs.prepare import prepare, read_prepared
from conrec.logs.sources import Loaded
from conrec.logs.titles import titles_of
from tests.small_run import write_small_log

CODEBOOK = 16


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def disturbed(module: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Weights as after some training: the answers of a fresh model are nearly uniform."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.15 * torch.randn(parameter.shape, generator=generator))
    return module


@pytest.fixture(scope="session")
def run_folder(ml100k: Loaded, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 60 users of MovieLens-100K with the rows conrec, sasrec and the counted ones; treat it as read-only."""
    source = tmp_path_factory.mktemp("source")
    run = tmp_path_factory.mktemp("predicting") / "run"
    config = load_config(file=write_small_log(ml100k, source, users=60))
    prepare(config, run)
    data = read_prepared(run)
    log = data.log
    rng = np.random.default_rng(0)
    drawn = rng.permutation(CODEBOOK**3)[: log.n_items]
    codes = np.stack([drawn // CODEBOOK**2, drawn // CODEBOOK % CODEBOOK, drawn % CODEBOOK], 1).astype(np.int32)
    write_semantic_ids(run / "items" / "semantic_ids.parquet", log.item_ids, SemanticIds(codes, codes.copy(), CODEBOOK))
    save_trie(run / "items" / TRIE, Trie.from_codes(torch.from_numpy(codes), CODEBOOK))
    rebuilt = rng.normal(size=(log.n_items, 8)).astype(np.float32)
    rebuilt /= np.linalg.norm(rebuilt, axis=1, keepdims=True)
    write_tensors(run / "items" / "rebuilt.safetensors", {"rebuilt": rebuilt})
    backbone = build_backbone(config.backbone, CODEBOOK, titles_of(data.items), INSTRUCTIONS, seed=1)
    disturbed(backbone.model, 2)
    backbone.save(run / "models" / "conrec" / "model")
    network = disturbed(SasrecNetwork(log.n_items, config.baselines.sasrec), 3)
    Sasrec(network.eval(), config.baselines.sasrec).save(run / "models" / "sasrec" / "model")
    write_text(run / "config.toml", dump_config(config))
    catalogue = FilterCatalogue.load(run)
    write_threshold(run, Threshold("conrec", 0.9, 0.05, "as given", 3, 2, 10, 0, 10, 5, catalogue.sid_hash, ()))
    return run
