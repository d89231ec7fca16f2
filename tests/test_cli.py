"""The command line: what is meant by a mistake, and never a traceback for one."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest
from rich.console import Console

from conrec import cli
from conrec.config import Config, dump_config, load_config
from conrec.errors import ConfigError


def conrec(*arguments, cwd=None):
    return subprocess.run(
        [sys.executable, "-m", "conrec.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rnu"], "Did you mean 'run'?"),
        (["run", "--presett", "tiny"], "--preset"),
        (["run", "--preset", "tinny"], "Did you mean 'tiny'?"),
        (["run", "--data", "ml100k"], "Did you mean 'ml-100k'?"),
        (["run", "--set", "grpo.grup_size=3"], "Did you mean 'group_size'?"),
        (["run", "--set", "grpo.group_size=1"], "grpo.group_size = 1 does not fit"),
        (["run", "--set", "seed"], "expected KEY=VALUE"),
        (["run", "nowhere.toml"], "nowhere.toml: this file does not exist"),
        (["evaluate", "nowhere"], "there is no run here"),
        (["report", "nowhere"], "nowhere"),
        (["items", "diagnose", "nowhere"], "there is no run here"),
        (["items", "diagnose", "nowhere", "--titles", "-1"], "--titles"),
        (["data", "fetch", "movielens"], "there is no source"),
        (["data", "check", "nowhere.csv"], "nowhere.csv"),
        (["predict", "nowhere", "--out", "sets"], "there is no run here"),
        (["predict", "nowhere"], "--out"),
        (["filter", "store", "--run", "nowhere", "--predictions", "sets"], "there is no run here"),
        (["filter", "apply", "--run", "nowhere", "--candidates", "c.csv", "--out", "d.csv"], "c.csv"),
    ],
)
def test_mistakes_end_with_a_clear_line(arguments, said, tmp_path):
    done = conrec(*arguments, cwd=tmp_path)
    assert done.returncode != 0
    assert said in done.stderr, done.stderr
    assert "Traceback" not in done.stderr + done.stdout


def test_sources_are_listed():
    done = conrec("data", "list")
    assert done.returncode == 0
    for name in ("ml-100k", "movietweetings", "table"):
        assert name in done.stdout


def test_doctor_says_what_is_there():
    done = conrec("doctor")
    assert "torch" in done.stdout
    assert "Traceback" not in done.stderr


def test_brackets_are_printed_as_they_are(monkeypatch, tmp_path):
    """Square brackets are markup to the terminal library, and part of IDs and pip commands to everybody else."""
    path = tmp_path / "events.csv"
    path.write_text("user_id,item_id,timestamp,rating\nu,i,1000000000,4\nu,j,1000000001,[bold]x\n")
    assert "[bold]x" in conrec("data", "check", path).stdout
    monkeypatch.setattr("conrec.doctor.examine", lambda: ([("extra", "pip install 'conrec[train]'")], True))
    printed = io.StringIO()
    monkeypatch.setattr(cli, "out", Console(file=printed, width=100))
    cli.doctor()
    assert "conrec[train]" in printed.getvalue()


def test_what_needs_no_model_loads_no_torch():
    code = (
        "import sys; import conrec.cli, conrec.evaluation.evaluate, conrec.filtering.bulk.apply, conrec.logs.check, "
        "conrec.predicting.store; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_missing_extra_names_the_command_that_brings_it(monkeypatch, capsys):
    def missing():
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(cli, "app", missing)
    with pytest.raises(SystemExit):
        cli.main()
    assert "pip install 'conrec[train]'" in capsys.readouterr().err


def test_a_full_disk_says_how_to_go_on(monkeypatch, capsys):
    def full():
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cli, "app", full)
    with pytest.raises(SystemExit):
        cli.main()
    assert "the same command again" in capsys.readouterr().err


@pytest.mark.parametrize(("rank", "said"), [(None, 1), ("0", 1), ("1", 0)])
def test_ctrl_c_says_how_to_go_on_once(monkeypatch, capsys, rank, said):
    if rank is not None:
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("RANK", rank)

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("conrec.doctor.examine", interrupted)
    monkeypatch.setattr(sys, "argv", ["conrec", "doctor"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 130
    assert capsys.readouterr().err.count("the same command continues") == said


def test_configuration_survives_its_file(tmp_path):
    for preset in ("tiny", "small", "paper"):
        config = load_config(preset, overrides={"run": {"seed": 7}})
        path = tmp_path / f"{preset}.toml"
        path.write_text(dump_config(config))
        assert Config.model_validate(load_config("tiny", path)) == config


def test_paths_in_a_file_are_relative_to_it(tmp_path):
    (tmp_path / "deep").mkdir()
    path = tmp_path / "deep" / "mine.toml"
    path.write_text('[data]\nsource = "table"\nevents = "e.csv"\n')
    assert load_config(file=path).data.events == tmp_path / "deep" / "e.csv"
    path.write_text(
        '[encoder]\nmodel = "a/name"\ncache = "vectors"\n[encoder.image]\nfolder = "../posters"\nmodel = "b"\n'
    )
    encoder = load_config(file=path).encoder
    assert (encoder.model, encoder.image.model) == ("a/name", "b")
    assert encoder.cache == tmp_path / "deep" / "vectors"
    assert encoder.image.folder == tmp_path / "posters"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[run\n", "cannot be read as TOML"),
        ("[sft]\nepoch = 3\n", "Did you mean 'epochs'"),
        ("[protocol]\nvalidation_cut = 0.9\n", "must be below"),
        ('[[grpo.stages]]\ncontext = "all"\n', "grpo.stages.0.context = 'all' does not fit"),
    ],
)
def test_files_with_mistakes_name_file_and_key(tmp_path, text, said):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"mine\.toml") as caught:
        load_config(file=path)
    assert said in str(caught.value)
