"""Settings of the baselines: one section each, and which of them a run trains."""

from __future__ import annotations

from pydantic import field_validator

from conrec.errors import did_you_mean
from conrec.rows import BASELINES
from conrec.settings.base import Settings
from conrec.settings.baselines.features import FdsaConfig, S3RecConfig
from conrec.settings.baselines.generative import P5CidConfig, TigerConfig
from conrec.settings.baselines.language import (
    InstructRecConfig,
    LcRecBothConfig,
    LcRecConfig,
    MiniOneRecConfig,
    TallRecConfig,
)
from conrec.settings.baselines.sequential import (
    Bert4RecConfig,
    CaserConfig,
    ESasrecConfig,
    HstuConfig,
    SasrecConfig,
    SasrecGbceConfig,
    SasrecSampledConfig,
)
from conrec.settings.baselines.signed import SignedGraphConfig, SignedSasrecConfig, TwoTowerConfig
from conrec.settings.baselines.simple import (
    CategoryRuleConfig,
    EaseConfig,
    ItemKnnAllConfig,
    ItemKnnConfig,
    NearestItemConfig,
    PopularityConfig,
    UserKnnConfig,
)

__all__ = ["BaselinesConfig"]


class BaselinesConfig(Settings):
    """The rows of the table that are not CoNRec, and their settings."""

    rows: tuple[str, ...] = ("most-disliked", "live-popularity", "sasrec", "lc-rec-negatives", "lc-rec-both")
    """Those that a run trains; `conrec baselines list` has all of them."""
    popularity: PopularityConfig = PopularityConfig()
    category_rule: CategoryRuleConfig = CategoryRuleConfig()
    nearest_item: NearestItemConfig = NearestItemConfig()
    item_knn_negatives: ItemKnnConfig = ItemKnnConfig()
    item_knn_all: ItemKnnAllConfig = ItemKnnAllConfig()
    user_knn: UserKnnConfig = UserKnnConfig()
    ease: EaseConfig = EaseConfig()
    caser: CaserConfig = CaserConfig()
    sasrec: SasrecConfig = SasrecConfig()
    sasrec_sampled: SasrecSampledConfig = SasrecSampledConfig()
    sasrec_gbce: SasrecGbceConfig = SasrecGbceConfig()
    bert4rec: Bert4RecConfig = Bert4RecConfig()
    esasrec: ESasrecConfig = ESasrecConfig()
    hstu: HstuConfig = HstuConfig()
    fdsa: FdsaConfig = FdsaConfig()
    s3_rec: S3RecConfig = S3RecConfig()
    sasrec_signed: SignedSasrecConfig = SignedSasrecConfig()
    two_tower: TwoTowerConfig = TwoTowerConfig()
    signed_graph: SignedGraphConfig = SignedGraphConfig()
    p5_cid: P5CidConfig = P5CidConfig()
    tiger: TigerConfig = TigerConfig()
    tallrec: TallRecConfig = TallRecConfig()
    instructrec: InstructRecConfig = InstructRecConfig()
    lc_rec_negatives: LcRecConfig = LcRecConfig()
    lc_rec_both: LcRecBothConfig = LcRecBothConfig()
    mini_one_rec: MiniOneRecConfig = MiniOneRecConfig()

    @field_validator("rows")
    @classmethod
    def _known(cls, rows: tuple[str, ...]) -> tuple[str, ...]:
        for name in rows:
            if name not in BASELINES:
                raise ValueError(f"there is no baseline {name!r}. {did_you_mean(name, BASELINES)}")
        return rows
