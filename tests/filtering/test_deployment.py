"""What is shipped: a service without what trains, a Dockerfile that the command understands, the example."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner

from conrec import cli

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "transformers", "tokenizers", "pandas", "pyspark", "sentence_transformers", "matplotlib")


def test_neither_filter_nor_service_imports_what_trains() -> None:
    modules = ("filter", "bulk.apply", "serving.app", "serving.server")
    rooms = ", ".join(f"conrec.filtering.{one}" for one in modules)
    code = f"import sys, conrec.cli.serving, {rooms}; print([one for one in {HEAVY} if one in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_the_container_starts_what_there_is() -> None:
    """There is no Docker here: that its words are understood is what can be checked."""
    said = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    entry, command, health = (
        json.loads(re.search(rf"^\s*{word} (\[.*\])$", said, re.MULTILINE)[1])
        for word in ("ENTRYPOINT", 'CMD(?! \\["python)', 'CMD(?= \\["python)')
    )
    assert entry == ["conrec"]
    main = typer.main.get_command(cli.app)
    assert isinstance(main, click.Group) or hasattr(main, "commands")
    name, *options = command
    context = main.commands[name].make_context(name, list(options), resilient_parsing=True)
    assert str(context.params["run_folder"]) == "/run/conrec"
    assert (context.params["host"], context.params["port"]) == ("0.0.0.0", 8080)
    compile(health[2], "HEALTHCHECK", "exec")
    assert "127.0.0.1:8080/ready" in health[2]
    copied = [word for line in re.findall(r"^COPY (?!--)(.*)", said, re.MULTILINE) for word in line.split()[:-1]]
    let_in = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    for one in copied:
        assert (ROOT / one).exists()
        assert f"!{one}" in let_in


def test_the_example_runs(circle_run: Callable[[float | None], Path], capsys: pytest.CaptureFixture[str]) -> None:
    code = (ROOT / "examples" / "filter_in_python.py").read_text(encoding="utf-8")
    names: dict[str, object] = {"__name__": "example"}
    exec(compile(code, "filter_in_python.py", "exec"), names)
    names["main"]([str(circle_run(0.9)), "--user", "ann"])
    assert capsys.readouterr().out.splitlines() == [
        "user 'ann': 4 of 6 candidates stay",
        "  dropped 'i0': similarity 1.0000 to a_0 b_0 c_0 ('i0')",
        "  dropped 'i1': similarity 0.9848 to a_0 b_0 c_0 ('i0')",
        "judged 6 at once, 2 dropped",
        "dry run: 0 dropped",
        "with ['i0'] allowed: 1 dropped",
        "threshold 1: 0 dropped",
        "an unknown user keeps 6 of 6: unknown user",
    ]


def test_the_command_takes_every_option(circle_run: Callable[[float | None], Path], tmp_path: Path) -> None:
    run, out = circle_run(0.9), tmp_path / "out.parquet"
    pairs = {"user_id": ["ann"] * 3, "item_id": ["i0", "i1", "i4"], "page": [1, 2, 2]}
    (tmp_path / "parts").mkdir()
    pq.write_table(pa.table(pairs), tmp_path / "parts" / "a.parquet")

    def conrec(*options: str) -> list[str]:
        command = ["filter", "apply", "--run", str(run), "--candidates", str(tmp_path / "parts"), "--out", str(out)]
        done = CliRunner().invoke(cli.app, [*command, *options])
        return [str(done.exception)] if done.exception else done.stdout.splitlines()

    said = conrec("--set", "filter.keep_at_least=2", "--request-column", "page", "--store", str(run / "filter/conrec"))
    assert said[0].startswith("3 rows: 0 dropped, 3 kept (0 of unknown users")
    assert said[1] == "  2 kept: too few would remain"
    assert pq.read_table(out)["reason"].to_pylist() == ["kept: too few would remain"] * 2 + ["not above the threshold"]
    assert conrec("--dry-run")[1] == "  2 kept: dry run"
    assert "filter.keep_at_least = -1 does not fit" in conrec("--set", "filter.keep_at_least=-1")[0]
    assert "engine.name = sparc does not fit" in conrec("--engine", "sparc")[0].replace("'", "")
