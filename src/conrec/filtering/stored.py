"""Which models of a run have a filter."""

from __future__ import annotations

from pathlib import Path

from conrec.errors import ArtefactError, did_you_mean
from conrec.filtering.stores.files import HEADER

__all__ = ["chosen_model", "stored_models"]

DEFAULT_MODEL = "conrec"


def stored_models(run_folder: Path) -> list[str]:
    """Models of a run that have a predict-set store, sorted.

    Raises:
        ArtefactError: there is no such folder.
    """
    if not run_folder.is_dir():
        raise ArtefactError("there is no run here", where=str(run_folder), expected="the folder of a finished run")
    return sorted(header.parent.name for header in (run_folder / "filter").glob(f"*/{HEADER}"))


def chosen_model(run_folder: Path, model: str | None) -> str:
    """The model whose filter is opened.

    Raises:
        ArtefactError: there is no such run, no store of this model, or several and none was named.
    """
    known = stored_models(run_folder)
    if model is None and (len(known) == 1 or DEFAULT_MODEL in known):
        return known[0] if len(known) == 1 else DEFAULT_MODEL
    if model is None or model not in known:
        none_named = f"there are predict-set stores of {len(known)} models, and none is named" if known else None
        raise ArtefactError(
            none_named
            if model is None and none_named
            else f"there is no predict-set store of a model {model or DEFAULT_MODEL!r}",
            where=str(run_folder / "filter"),
            mend=f"{did_you_mean(model or DEFAULT_MODEL, known)} Stores are written for the models in filter.models; "
            "with another list the same run command adds them."
            if known
            else "The filter stage of this run has not finished: give the command of the run again.",
        )
    return model
