"""Several views of an item fused into the one vector that is quantised, fitted on the items of the training period."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from conrec.arrays import Array
from conrec.artefacts import read_tensor_metadata, read_tensors, write_tensors
from conrec.errors import ArtefactError, ConfigError

__all__ = ["Fusion", "View"]

_METADATA_KEY = "conrec"


@dataclass(frozen=True, slots=True)
class View:
    """What one encoder says of each item.

    Attributes:
        rows: float32 [items, d].
        present: bool [items]; whether the encoder had anything to say. A row that is absent counts as the mean.
    """

    rows: Array
    present: Array


@dataclass(frozen=True, slots=True)
class Fusion:
    """How views become one vector: each is centred, brought to a root-mean-square length of 1 and multiplied by its
    weight; rows that are absent are zero; the views stand side by side. Then, if asked for, principal components.

    Text alone, with weight 1 and no components, is left as it is.

    Attributes:
        names: views in their order.
        weights: of each view.
        means: float64 [d] of each view, over the training items where it is present.
        lengths: root mean square of its centred rows there; 1 where that is 0.
        components: float64 [pca_dim, sum of d], unit rows, each with its largest entry positive; None: not asked for.
        scales: float64 [pca_dim], what a component is multiplied by: 1, or what gives it a variance of 1.
        gap: float32 [d image], what is added to a text's vector where it stands for an image (see
            `conrec.items.encoders.embed`); None where there is no such thing.
        made_from: fingerprint of each model that a view comes from.
    """

    names: tuple[str, ...]
    weights: tuple[float, ...]
    means: tuple[Array, ...]
    lengths: tuple[float, ...]
    components: Array | None = None
    scales: Array | None = None
    gap: Array | None = None
    made_from: tuple[tuple[str, str], ...] = ()

    @classmethod
    def fit(
        cls,
        views: Mapping[str, View],
        weights: Mapping[str, float],
        pca_dim: int | None = None,
        *,
        whiten: bool = False,
        gap: Float32[Array, " d"] | None = None,
        made_from: Mapping[str, str] | None = None,
    ) -> Fusion:
        """Fit on the items of the training period.

        Args:
            views: of those items alone, all with the same number of rows.
            weights: above 0, of each view.
            pca_dim: how many principal components are kept; None: the fused vector as it is.
            whiten: scale components to the same variance; one that no training item varies in becomes 0.
            gap: see the attribute.
            made_from: see the attribute.

        Raises:
            ConfigError: more components than the fused vector is long.
        """
        means, lengths = [], []
        for view in views.values():
            rows = view.rows[view.present].astype(np.float64)
            mean = rows.mean(axis=0) if len(rows) else np.zeros(view.rows.shape[1])
            length = float(np.sqrt(np.square(rows - mean).sum(axis=1).mean())) if len(rows) else 0.0
            means.append(mean)
            # Rows that are all alike stay zeros.
            lengths.append(length if length > 1e-8 else 1.0)
        plain = cls(
            tuple(views),
            tuple(float(weights[name]) for name in views),
            tuple(means),
            tuple(lengths),
            gap=gap,
            made_from=tuple(sorted((made_from or {}).items())),
        )
        if pca_dim is None:
            return plain
        components, variances = _principal(plain._side_by_side(views), pca_dim)
        scales = np.ones(pca_dim)
        if whiten:
            there = variances > 1e-10 * max(variances[0], 1e-300)
            scales = np.divide(1.0, np.sqrt(variances), out=np.zeros(pca_dim), where=there)
        return cls(
            plain.names, plain.weights, plain.means, plain.lengths, components, scales, plain.gap, plain.made_from
        )

    @property
    def identity(self) -> bool:
        """Whether vectors are left as they are."""
        return self.names == ("text",) and self.weights == (1.0,) and self.components is None

    @property
    def dim(self) -> int:
        """Length of a fused vector."""
        return sum(map(len, self.means)) if self.components is None else len(self.components)

    def apply(self, views: Mapping[str, View]) -> Float32[Array, "items d"]:
        """The fused vectors of any items.

        A view of the fusion that is not among ``views`` is absent for all of them. With principal components the last
        bits of a row depend on how many rows are given.

        Args:
            views: at least one of those that were fitted.

        Raises:
            ValueError: no view is given, or one is of another length than what was fitted, or not one of the fusion.
        """
        if not views:
            raise ValueError(f"no view to apply, of {', '.join(self.names)}")
        for name, view in views.items():
            if name not in self.names or view.rows.shape[1] != len(self.means[self.names.index(name)]):
                raise ValueError(f"the view {name!r} of shape {view.rows.shape} does not fit {self.describe()}")
        if self.identity:
            return views["text"].rows
        fused = self._side_by_side(views)
        if self.components is not None:
            fused = fused @ self.components.T * self.scales
        return fused.astype(np.float32)

    def describe(self) -> dict[str, Any]:
        """The fusion as a JSON value, without its numbers."""
        return {
            "views": [
                {"name": name, "dim": len(mean), "weight": weight}
                for name, mean, weight in zip(self.names, self.means, self.weights, strict=True)
            ],
            "lengths": list(self.lengths),
            "made_from": dict(self.made_from),
        }

    def save(self, path: Path) -> None:
        """Write everything as one safetensors file."""
        tensors = {f"mean.{name}": mean for name, mean in zip(self.names, self.means, strict=True)}
        optional = {"components": self.components, "scales": self.scales, "gap": self.gap}
        tensors |= {name: value for name, value in optional.items() if value is not None}
        # One metadata key only: safetensors writes several in no fixed order.
        write_tensors(path, tensors, {_METADATA_KEY: json.dumps(self.describe(), sort_keys=True)})

    @classmethod
    def load(cls, path: Path) -> Fusion:
        """Read what `save` wrote.

        Raises:
            ArtefactError: the file is missing, damaged or holds something else.
        """
        tensors = read_tensors(path)
        metadata = read_tensor_metadata(path)
        try:
            found = json.loads(metadata[_METADATA_KEY])
            views = found["views"]
            names = tuple(view["name"] for view in views)
            means = tuple(tensors[f"mean.{name}"] for name in names)
            if [len(mean) for mean in means] != [view["dim"] for view in views]:
                raise ValueError("lengths of its means")
            fusion = cls(
                names,
                tuple(float(view["weight"]) for view in views),
                means,
                tuple(float(one) for one in found["lengths"]),
                tensors.get("components"),
                tensors.get("scales"),
                tensors.get("gap"),
                tuple(sorted(found["made_from"].items())),
            )
            wide = sum(map(len, means))
            if fusion.components is not None and (fusion.scales is None or fusion.components.shape[1] != wide):
                raise ValueError("shape of its components")
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            reason = str(error).splitlines()[0]
            raise ArtefactError(f"does not hold a fusion ({reason})", where=str(path)) from None
        return fusion

    def _side_by_side(self, views: Mapping[str, View]) -> Array:
        """Centred, scaled, weighted and concatenated, float64 [items, sum of d]."""
        items = len(next(iter(views.values())).rows)
        blocks = []
        for name, weight, mean, length in zip(self.names, self.weights, self.means, self.lengths, strict=True):
            block = np.zeros((items, len(mean)))
            if name in views:
                present = views[name].present
                block[present] = (views[name].rows[present] - mean) * (weight / length)
            blocks.append(block)
        return np.concatenate(blocks, axis=1)


def _principal(rows: Array, count: int) -> tuple[Array, Array]:
    """The first principal directions of rows whose mean is zero, and the variance along each.

    Args:
        rows: float64 [n, d].
        count: how many.

    Returns:
        Directions float64 [count, d], unit rows, the entry of largest size (the first of several) positive; variances
        float64 [count], descending.

    Raises:
        ConfigError: more than d.
    """
    if count > rows.shape[1]:
        raise ConfigError(
            f"{count} principal components of vectors of length {rows.shape[1]}",
            where="encoder.pca_dim",
            expected=f"at most {rows.shape[1]}",
        )
    variances, directions = np.linalg.eigh(rows.T @ rows / max(len(rows), 1))
    directions = directions.T[::-1][:count]
    largest = np.abs(directions).argmax(axis=1)
    signs = np.where(directions[np.arange(count), largest] < 0, -1.0, 1.0)
    return directions * signs[:, None], np.maximum(variances[::-1][:count], 0.0)
