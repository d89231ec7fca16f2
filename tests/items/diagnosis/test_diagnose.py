"""Diagnostics and stability of a finished items stage, from its files and by the command."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from typer.testing import CliRunner

from conrec.artefacts import read_json, read_tensors, write_tensors, write_text
from conrec.cli import app
from conrec.config import Config, dump_config, load_config
from conrec.errors import ArtefactError
from conrec.items.diagnosis import stability
from conrec.items.diagnosis.diagnose import QUANTISER, STABILITY, diagnose, quantiser_hash, read_embeddings
from conrec.items.diagnosis.paraphrase import RULES
from conrec.logs.prepare import Prepared, prepare, read_prepared
from conrec.logs.sources import Loaded
from conrec.seeds import derive
from tests.items.appending import write_items_stage
from tests.small_run import write_small_log


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def config(ml100k: Loaded, tmp_path_factory: pytest.TempPathFactory) -> Config:
    file = write_small_log(ml100k, tmp_path_factory.mktemp("source"), users=8)
    encoder = {"cache": str(tmp_path_factory.mktemp("vectors"))}
    return load_config(file=file, overrides={"encoder": encoder, "rqvae": {"codebook_size": 16}})


@pytest.fixture(scope="module")
def run(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first two stages of a run; treat it as read-only."""
    folder = tmp_path_factory.mktemp("diagnose") / "run"
    prepare(config, folder)
    write_text(folder / "config.toml", dump_config(config))
    data = read_prepared(folder)
    return write_items_stage(folder, data.items, data.trained_items(), config)


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(run, tmp_path / "run")


@pytest.fixture(scope="module")
def data(run: Path) -> Prepared:
    return read_prepared(run)


def test_the_stage_wrote_what_its_files_say(run: Path, data: Prepared) -> None:
    written = read_json(run / "items" / "diagnostics.json")
    found = diagnose(run / "items", data.items, data.trained_items(), 0)
    assert found["items"] == data.log.n_items
    assert found["training_items"] == int(data.trained_items().sum())
    for name in ("levels", "collisions"):
        assert found[name] == written[name]
    for name in ("reconstruction_cosine", "reconstruction_cosine_resolved"):
        assert found[name] == pytest.approx(written[name], abs=1e-6)
    # Items with the same codes are the only ones that a last bit could part, and they tie.
    for which in ("raw", "resolved"):
        rates = (one["neighbour_hit_rate"][which] for one in (found, written))
        assert next(rates) == pytest.approx(next(rates), abs=1e-3)
    assert 0.02 < found["neighbour_hit_rate"]["chance"] * 5 < found["neighbour_hit_rate"]["raw"]["all"]


def test_another_catalogue_is_refused(copy: Path, data: Prepared) -> None:
    other = data.items.set_column(0, "item_id", pa.array([f"other {row}" for row in range(data.items.num_rows)]))
    with pytest.raises(ArtefactError, match=r"not those of the run's catalogue.*Run the items stage again"):
        diagnose(copy / "items", other, data.trained_items(), 0)
    path = copy / "items" / "embeddings.safetensors"
    short = read_tensors(path)["embedding"][1:]
    write_tensors(path, {"embedding": short})
    with pytest.raises(ArtefactError, match=r"embeddings\.safetensors.*expected 'embedding', float32"):
        read_embeddings(copy / "items", len(short) + 1)
    (copy / "items" / QUANTISER).unlink()
    assert quantiser_hash(copy / "items") == ""
    with pytest.raises(ArtefactError, match="missing"):
        diagnose(run_without(copy, data), data.items, data.trained_items(), 0)


def run_without(copy: Path, data: Prepared) -> Path:
    """The items folder with embeddings of the right number again, and no quantiser."""
    rows = np.zeros((data.items.num_rows, 4), dtype=np.float32)
    write_tensors(copy / "items" / "embeddings.safetensors", {"embedding": rows})
    return copy / "items"


def invoke(*arguments: str | Path) -> str:
    done = CliRunner().invoke(app, ["items", "diagnose", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_command_prints_json(run: Path, data: Prepared) -> None:
    found = json.loads(invoke(run, "--json", "--titles", "2"))
    seed = derive(load_config(file=run / "config.toml").run.seed, "items")
    assert found == diagnose(run / "items", data.items, data.trained_items(), seed, 2)
    examples = [one for level in found["category_purity"]["levels"] for one in level["purest"]]
    assert examples
    assert {len(one["titles"]) for one in examples} == {2}
    assert not (run / "items" / STABILITY).exists()


def test_the_command_prints_tables(run: Path) -> None:
    said = re.sub(r"\s+", " ", invoke(run))
    for title in ("Use of the 16 codes of each level", "Collisions", "What the codes keep", "Category purity"):
        assert title in said
    assert "Purest prefixes" in said
    assert "Stability" not in said
    assert "Purest prefixes" not in invoke(run, "--titles", "0")


def test_stability_is_written_and_nothing_else_changes(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stability, "SAMPLE", 60)
    before = {one: one.read_bytes() for one in (copy / "items").iterdir()}
    found = json.loads(invoke(copy, "--stability", "--json"))["stability"]
    path = copy / "items" / STABILITY
    assert read_json(path) == found
    assert found["quantiser"] == quantiser_hash(copy / "items")
    assert {one: one.read_bytes() for one in (copy / "items").iterdir() if one != path} == before
    rules = {one["rule"]: one for one in found["paraphrase"]}
    assert list(rules) == list(RULES)
    assert rules["lower case"]["kept"] == pytest.approx([1, 1, 1], abs=0.01), "this encoder reads small letters alone"
    assert rules["lower case"]["kept"][0] > rules["all of these"]["kept"][0]
    assert found["appended"]["kept"] == [1, 1, 1]
    assert "Stability under training again" in invoke(copy, "--stability", "--titles", "0")
