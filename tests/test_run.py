"""What a run refuses before any work, and what it takes away of another configuration."""

from __future__ import annotations

import pytest
import torch

from conrec.config import dump_config, load_config
from conrec.errors import ConfigError
from conrec.run import Chain, _check, execute
from conrec.workspace import Workspace


def test_a_row_that_does_not_exist_is_named(tmp_path):
    config = load_config(overrides={"filter": {"models": ["sasrec", "conrek"]}})
    with pytest.raises(ConfigError, match=r"filter\.models: there is no row 'conrek'.*'conrec'"):
        execute(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_of_other_data_is_not_overwritten(tmp_path):
    (tmp_path / "config.toml").write_text(dump_config(load_config()))
    _check(load_config(overrides={"sft": {"epochs": 9}}), tmp_path)
    with pytest.raises(ConfigError, match=r"made from other data.*another --out"):
        _check(load_config(overrides={"data": {"source": "movietweetings"}}), tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="speaks of machines without a GPU")
def test_a_gpu_that_is_not_there_is_said_before_any_work(tmp_path):
    with pytest.raises(ConfigError, match=r"run\.device"):
        execute(load_config("paper", overrides={"backbone": {"name": "nobody/nothing"}}), tmp_path)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"evaluation": {"top_k": 80}}, "evaluation.top_k 80"),
        ({"prediction": {"predict_set": 80}}, "predict_set 80 exceeds"),
        ({"backbone": {"heads": 4, "key_value_heads": 3}}, "key_value_heads"),
        ({"baselines": {"sasrec": {"hidden_size": 63}}}, "heads 2 must divide hidden_size 63"),
        ({"grpo": {"stages": []}}, "grpo.stages"),
        ({"run": {"threads": -1}}, "run.threads"),
        ({"swing": {"alpha1": -3.0}}, "swing.alpha1"),
        ({"data": {"events": "mine.csv"}}, 'data.source = "table"'),
    ],
)
def test_settings_that_would_fail_late_are_refused_early(overrides, said):
    with pytest.raises(ConfigError) as caught:
        load_config(overrides=overrides)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("section", "now"),
    [
        ("popularity", "[baselines.popularity]"),
        ("sasrec", "[baselines.sasrec]"),
        ("lc_rec", "[baselines.lc_rec_negatives] and [baselines.lc_rec_both]"),
    ],
)
def test_sections_that_have_moved_are_named(tmp_path, section, now):
    """A file of a run from before: as a file, and as the configuration of a run that is to go on."""
    (tmp_path / "config.toml").write_text(f"[{section}]\nepochs = 3\n")
    for read in (lambda: load_config(file=tmp_path / "config.toml"), lambda: _check(load_config(), tmp_path)):
        with pytest.raises(ConfigError) as caught:
            read()
        assert str(caught.value).endswith(f"config.toml: there is no key {section!r}. It is now {now}.")
    with pytest.raises(ConfigError, match=r"no key 'sasrek'\. Known: "):
        load_config(overrides={"sasrek": {}})


def test_items_depend_on_the_files_of_both_encoders_and_of_the_images(tmp_path):
    """A model in a folder by its contents, images by their names, sizes and times."""
    for name in ("text", "image", "posters"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("1")
    image = {"model": str(tmp_path / "image"), "folder": str(tmp_path / "posters")}
    encoder = {"model": str(tmp_path / "text"), "image": image}

    def section():
        return Workspace(tmp_path / "run", load_config(overrides={"encoder": encoder})).section("encoder")

    before = section()
    for name in ("text", "image", "posters"):
        (tmp_path / name / "file").write_text("another")
        after = section()
        assert after != before
        assert section() == after
        before = after
    image["model"] = "a/name"  # no folder: its name stands for it
    assert "encoder image files" in before
    assert "encoder image files" not in section()


def test_every_stage_writes_what_a_later_one_reads(tmp_path):
    """Inputs are outputs of earlier stages, and no two stages write the same file."""
    written: set[str] = set()
    config = load_config(
        overrides={"data": {"source": "table", "events": str(tmp_path / "e"), "items": str(tmp_path / "i")}}
    )
    for name in ("e", "i"):
        (tmp_path / name).write_text("x")
    for stage in Chain(Workspace(tmp_path, config)).stages():
        assert set(stage.inputs) <= written, stage.name
        assert not set(stage.outputs) & written, stage.name
        written |= set(stage.outputs)
