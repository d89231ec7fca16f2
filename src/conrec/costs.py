"""What a row of the table costs: seconds to train and to answer, and how many numbers it has learned.

Seconds differ from run to run, so they lie apart from the artefacts whose bytes repeat.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from conrec.artefacts import read_json, write_json
from conrec.errors import ArtefactError
from conrec.recommender import Recommender

__all__ = ["RowCosts", "read_costs", "write_costs"]


@dataclass(frozen=True, slots=True)
class RowCosts:
    """Of one row in one run.

    Attributes:
        train_seconds: of its own training, without that of the row it starts from; 0 where nothing is trained.
        predict_seconds: to rank the catalogue for all questions, model loaded.
        questions: validation and test anchors.
        parameters: learned numbers; None where the model does not say.
        threads: of the processor.
    """

    train_seconds: float
    predict_seconds: float
    questions: int
    parameters: int | None
    threads: int


def write_costs(run_folder: Path, name: str, model: Recommender, predict_seconds: float, questions: int) -> None:
    """Write ``RUN/costs/NAME.json`` of a row that has just answered."""
    manifest = run_folder / "models" / f"{name}.train.json"
    trained = float(read_json(manifest)["seconds"]) if manifest.is_file() else 0.0
    parameters: int | None = getattr(model, "parameters", None)
    costs = RowCosts(trained, round(predict_seconds, 4), questions, parameters, torch.get_num_threads())
    write_json(run_folder / "costs" / f"{name}.json", asdict(costs))


def read_costs(run_folder: Path, name: str) -> RowCosts | None:
    """What `write_costs` wrote; None where there is nothing.

    Raises:
        ArtefactError: the file is damaged.
    """
    path = run_folder / "costs" / f"{name}.json"
    if not path.is_file():
        return None
    try:
        return RowCosts(**read_json(path))
    except TypeError as error:
        raise ArtefactError(f"does not hold the costs of a row ({error})", where=str(path)) from None
