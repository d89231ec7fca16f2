"""Whether DuckDB and Spark write the same bytes: the data stage of whole logs on both, file by file.

Run as ``python -m benchmarks.studies.engines NAME=CONFIG.toml … --json FILE``; each log is prepared by both engines
into a temporary folder, and the SHA-256 of every file is compared. Spark runs as ``local[2]``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common.machine import machine

from conrec.artefacts import hash_file
from conrec.config import load_config
from conrec.logs.costs import Costs
from conrec.logs.engines.spark import Spark
from conrec.logs.prepare import STEPS, prepare


def compare(config: Path, out: Path) -> dict[str, Any]:
    """Prepare one log on both engines.

    Returns:
        Events, seconds of each engine, and for each file whether its bytes are the same.
    """
    seconds, events, hashes = {}, 0, {}
    for engine in ("duckdb", "spark"):
        costs = Costs(STEPS)
        prepare(load_config(file=config, overrides={"engine": {"name": engine}}), out / engine, costs=costs)
        seconds[engine] = round(sum(costs.seconds.values()), 1)
        events = costs.events
        hashes[engine] = {file.name: hash_file(file) for file in sorted((out / engine / "data").iterdir())}
    names = sorted(hashes["duckdb"].keys() | hashes["spark"].keys())
    same = {name: hashes["duckdb"].get(name) == hashes["spark"].get(name) for name in names}
    return {"events": events, "seconds": seconds, "same": same}


def main() -> None:
    """Compare what the command line names, and write the result after each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("logs", nargs="+", metavar="NAME=CONFIG.toml")
    parser.add_argument("--json", type=Path, required=True)
    given = parser.parse_args()
    result: dict[str, Any] = {"study": "engines", "machine": machine("cpu"), "logs": {}}
    with Spark("local[2]"):  # the session that every log is prepared in
        for one in given.logs:
            name, _, config = one.partition("=")
            with tempfile.TemporaryDirectory() as out:
                result["logs"][name] = compare(Path(config), Path(out))
            given.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
            print(name, json.dumps(result["logs"][name]), flush=True)


if __name__ == "__main__":
    main()
