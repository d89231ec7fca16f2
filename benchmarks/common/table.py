"""Write the table of docs/benchmarks.md from benchmarks/results/*.json, between its two marks.

Run it as ``python benchmarks/common/table.py`` after the benchmarks have written their results with ``--json``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["fill", "table"]

ROOT = Path(__file__).parents[2]
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


def table(results: list[dict[str, Any]]) -> str:
    """Claims of all results as one Markdown table, then what they were measured on."""
    lines = ["| benchmark | claim | value | bound | turns | |", "|---|---|---|---|---|---|"]
    for result in results:
        for claim in result["claims"]:
            bound = f"≥ {claim['at_least']:.3g}" if "at_least" in claim else f"≤ {claim['at_most']:.3g}"
            value = "–" if claim["value"] is None else f"{claim['value']:.3g}"
            holds = "holds" if claim["holds"] else "**fails**"
            lines.append(
                f"| {result['benchmark']} | `{claim['claim']}` | {value} | {bound} | {claim['runs']} | {holds} |"
            )
    machines = {json.dumps(_machine(result["machine"])): None for result in results}
    return "\n".join([*lines, "", *(json.loads(one) for one in machines)])


def _machine(machine: dict[str, Any]) -> str:
    accelerator = f", {machine['accelerator']}" if machine["accelerator"] else ""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"Measured on {machine['cpu']}, {machine['cores']} cores, {machine['torch_threads']} threads{accelerator}; "
        f"Python {machine['python']}, {versions}."
    )


def fill(page: str, results: list[dict[str, Any]]) -> str:
    """The page with its table replaced.

    Raises:
        ValueError: the page does not have the two marks.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN} … {END}")
    return f"{before}{BEGIN}\n{table(results)}\n{END}{after}"


def main() -> None:
    """Fill the page in."""
    files = sorted((ROOT / "benchmarks" / "results").glob("*.json"))
    # Studies lie in the same folder and claim nothing.
    results = [one for one in (json.loads(file.read_text(encoding="utf-8")) for file in files) if "claims" in one]
    page = ROOT / "docs" / "benchmarks.md"
    page.write_text(fill(page.read_text(encoding="utf-8"), results), encoding="utf-8")
    print(f"{page}: {len(results)} results")


if __name__ == "__main__":
    main()
