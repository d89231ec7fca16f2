"""From the files of a run to one page that opens anywhere: ``RUN/report.html``."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from conrec import __version__
from conrec.artefacts import write_text
from conrec.errors import MissingExtraError
from conrec.report.codes import codebooks
from conrec.report.examples import examples
from conrec.report.filtering import filtering
from conrec.report.overview import overview
from conrec.report.results import ablation, alignment, no_negative_history, results
from conrec.report.settings import settings
from conrec.report.source import RunSource
from conrec.report.studies import motivation
from conrec.report.training import training

try:
    from jinja2 import Environment, StrictUndefined
except ImportError:
    raise MissingExtraError("jinja2", "report") from None

__all__ = ["build_report"]

SECTIONS = (
    overview,
    results,
    no_negative_history,
    ablation,
    alignment,
    training,
    codebooks,
    motivation,
    filtering,
    examples,
    settings,
)
"""The page from top to bottom; each makes one section of a run's files."""


def build_report(run_folder: Path) -> Path:
    """Write ``RUN/report.html``: one file, no network, no script; the same run gives the same bytes.

    What a run does not have (an optional artefact) is said in its section.

    Raises:
        ArtefactError: the configuration, the data or the metrics are missing, or a file is damaged.
        MissingExtraError: matplotlib or jinja2 is not installed.
    """
    source = RunSource.load(run_folder)
    template = files("conrec.report").joinpath("template.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    page = environment.from_string(template).render(
        title=f"What will they dislike next? {source.config.data.source}",
        lead="A run of conrec: negative recommendation learned from what users disliked, and a filter made of it.",
        sections=[section(source) for section in SECTIONS],
        footer=f"Written by conrec {__version__}. This file is complete: it loads nothing and runs no script.",
    )
    path = run_folder / "report.html"
    write_text(path, page)
    return path
