"""Which class answers for which row of the table; classes are loaded only when they are asked for."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from conrec.baselines.base import Curve
from conrec.config import Config, Context
from conrec.recommender import Recommender

if TYPE_CHECKING:
    from conrec.workspace import Workspace

__all__ = [
    "REGISTRY",
    "TRANSLATION",
    "Baseline",
    "Entry",
    "baseline_class",
    "context_of",
    "counted",
    "generative",
    "own_items",
    "trained_row",
]


@runtime_checkable
class Baseline(Recommender, Protocol):
    """A row of the table that is not CoNRec: a recommender that can be fitted, saved and loaded.

    Attributes:
        curve: series of its training by name, each of [step, value] pairs; empty where nothing is trained in steps.
    """

    curve: Curve

    @property
    def parameters(self) -> int:
        """Numbers that were learned from the log."""
        ...

    @classmethod
    def fit(cls, space: Workspace, name: str) -> Baseline:
        """Fit on the training period of a run, choosing by the validation period where there is a choice.

        Args:
            space: what the run holds.
            name: of the row; one class may serve several.

        Raises:
            NotApplicableError: the log lacks what the row needs.
        """
        ...

    def save(self, folder: Path) -> None:
        """Write what `load` needs into ``folder``, as safetensors and JSON."""
        ...

    @classmethod
    def load(cls, folder: Path, space: Workspace, name: str) -> Baseline:
        """Read what `save` wrote; it answers as the saved one did.

        Raises:
            ArtefactError: a file is missing, damaged, or does not fit the others.
        """
        ...


@dataclass(frozen=True, slots=True)
class Entry:
    """A row and where its code is.

    Attributes:
        name: of the row.
        place: module below ``conrec.baselines``, and class.
        sections: of the configuration on which its training depends, as dotted names.
        start: row whose weights it starts from; empty for none.
        source: the publication that it follows; empty for what needs none.
        needs: what of the items it reads, besides the log.
        context: what its prompts show of a history, in training and in prediction; None: it has no such prompts.
    """

    name: str
    place: str
    sections: tuple[str, ...] = ()
    start: str = ""
    source: str = ""
    needs: tuple[str, ...] = ()
    context: Context | None = None

    @property
    def counted(self) -> bool:
        """Whether it is counted anew from the log whenever it is asked; nothing of it is saved."""
        return self.name in COUNTED

    @property
    def own_items(self) -> bool:
        """Whether it has learned something of each item by itself, and so knows the items of its run alone; the others
        read items that were appended later by their semantic IDs, or by what is done with them."""
        return self.name != "live-popularity" and not self.generative

    @property
    def generative(self) -> bool:
        """Whether it is a language model with CoNRec's prompts and trie, `conrec.llm.recommender`."""
        return self.context is not None


COUNTED = ("most-disliked", "live-popularity")
TRANSLATION = "conrec-translation"
LANGUAGE = ("backbone", "prompts", "prediction")
"""Sections that every row with CoNRec's backbone depends on."""

_ENTRIES = (
    Entry("most-disliked", "simple.popularity:MostDisliked"),
    Entry("live-popularity", "simple.popularity:LivePopularity", ("baselines.popularity",)),
    Entry(
        "category-rule", "simple.category_rule:CategoryRule", ("baselines.category_rule", "baselines.popularity"),
        needs=("categories",),
    ),
    Entry("nearest-item", "simple.nearest_item:NearestItem", ("baselines.nearest_item",), needs=("embeddings",)),
    Entry(
        "item-knn-negatives", "simple.item_knn:ItemKnn", ("baselines.item_knn_negatives",),
        source="WWW 2001, Sarwar et al.",
    ),
    Entry("item-knn-all", "simple.item_knn:ItemKnn", ("baselines.item_knn_all",), source="WWW 2001, Sarwar et al."),
    Entry("user-knn", "simple.user_knn:UserKnn", ("baselines.user_knn",), source="SIGIR 1999, Herlocker et al."),
    Entry("ease", "simple.ease:Ease", ("baselines.ease",), source="arXiv 1905.03375"),
    Entry("caser", "sequential.caser:Caser", ("baselines.caser",), source="arXiv 1809.07426"),
    Entry("sasrec", "sequential.sasrec:Sasrec", ("baselines.sasrec",), source="arXiv 1808.09781"),
    Entry("sasrec-sampled", "sequential.sasrec:Sasrec", ("baselines.sasrec_sampled",), source="arXiv 2309.07602"),
    Entry("sasrec-gbce", "sequential.sasrec:Sasrec", ("baselines.sasrec_gbce",), source="arXiv 2308.07192"),
    Entry("bert4rec", "sequential.bert4rec:Bert4Rec", ("baselines.bert4rec",), source="arXiv 1904.06690"),
    Entry(
        "fdsa", "sequential.fdsa:Fdsa", ("baselines.fdsa",), source="IJCAI 2019, Zhang et al.",
        needs=("categories", "embeddings"),
    ),
    Entry("s3-rec", "sequential.s3_rec:S3Rec", ("baselines.s3_rec",), source="arXiv 2008.07873", needs=("categories",)),
    Entry("esasrec", "sequential.esasrec:ESasrec", ("baselines.esasrec",), source="arXiv 2508.06450"),
    Entry("hstu", "sequential.hstu:Hstu", ("baselines.hstu",), source="arXiv 2402.17152"),
    Entry("sasrec-signed", "signed.signed_sasrec:SignedSasrec", ("baselines.sasrec_signed",)),
    Entry(
        "two-tower", "signed.two_tower:TwoTower", ("baselines.two_tower",), source="IJCAI 2020, Xie et al.",
        needs=("categories", "embeddings"),
    ),
    Entry("signed-graph", "signed.signed_graph:SignedGraph", ("baselines.signed_graph",), source="arXiv 2306.04095"),
    Entry("p5-cid", "generative.p5_cid:P5Cid", ("baselines.p5_cid", "prediction"), source="arXiv 2305.06569"),
    Entry(
        "tiger", "generative.tiger:Tiger", ("baselines.tiger", "prediction"), source="arXiv 2305.05065",
        needs=("semantic IDs",),
    ),
    Entry(
        "tallrec", "language.tallrec:TallRec", ("baselines.tallrec", *LANGUAGE), TRANSLATION, "arXiv 2305.00447",
        ("titles",),
    ),
    Entry(
        "instructrec", "language.instructrec:InstructRec", ("baselines.instructrec", *LANGUAGE), TRANSLATION,
        "arXiv 2305.07001", ("titles",),
    ),
    Entry(
        "lc-rec-negatives", "language.lc_rec:LcRec", ("baselines.lc_rec_negatives", "sft", *LANGUAGE), TRANSLATION,
        "arXiv 2311.09049", ("semantic IDs",), "negative",
    ),
    Entry(
        "lc-rec-both", "language.lc_rec:LcRec", ("baselines.lc_rec_both", "sft", *LANGUAGE), TRANSLATION,
        "arXiv 2311.09049", ("semantic IDs",), "both",
    ),
    Entry(
        "mini-one-rec", "language.mini_one_rec:MiniOneRec", ("baselines.mini_one_rec", "grpo", *LANGUAGE),
        "lc-rec-negatives", "arXiv 2510.24431", ("semantic IDs",), "negative",
    ),
)  # fmt: skip
REGISTRY: dict[str, Entry] = {entry.name: entry for entry in _ENTRIES}
"""Every row of `conrec.rows.BASELINES`, in their order."""


def baseline_class(name: str) -> Any:
    """The class of a row, a `Baseline`; what it needs beyond the core install is imported here."""
    module, _, cls = REGISTRY[name].place.partition(":")
    return getattr(import_module(f"conrec.baselines.{module}"), cls)


def own_items(name: str) -> bool:
    """See `Entry.own_items`; CoNRec has not."""
    return name in REGISTRY and REGISTRY[name].own_items


def counted(name: str) -> bool:
    """See `Entry.counted`; CoNRec is not."""
    return name in REGISTRY and REGISTRY[name].counted


def generative(name: str) -> bool:
    """See `Entry.generative`; CoNRec is, after each of its stages."""
    return name not in REGISTRY or REGISTRY[name].generative


def context_of(name: str, config: Config) -> Context:
    """What prompts show at prediction: CoNRec's as configured, a baseline's as it was trained."""
    entry = REGISTRY.get(name)
    return config.prediction.context if entry is None or entry.context is None else entry.context


def trained_row(space: Workspace, name: str) -> Recommender:
    """A row of the table, trained by a run and ready to be asked.

    Raises:
        ArtefactError: it is not trained, or its files are damaged.
    """
    if name not in REGISTRY:
        return space.generative(space.backbone(name), context_of(name, space.config))
    kind = baseline_class(name)
    fitted: Recommender
    if counted(name):
        fitted = kind.fit(space, name)
    else:
        fitted = kind.load(space.folder / "models" / name / "model", space, name)
    return fitted
