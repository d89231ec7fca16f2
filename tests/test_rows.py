"""The rows of a run follow its configuration."""

from __future__ import annotations

import pytest

from conrec.baselines.registry import REGISTRY, TRANSLATION
from conrec.config import Config, load_config
from conrec.rows import BASELINES, conrec_rows, in_order, row_label, rows_of
from conrec.run import Chain
from conrec.workspace import Workspace


def config_of(*contexts: str) -> Config:
    return Config.model_validate({"grpo": {"stages": [{"context": one} for one in contexts]}})


def test_rows_are_baselines_then_stages() -> None:
    rows = rows_of(Config())
    assert rows[:5] == ["most-disliked", "live-popularity", "sasrec", "lc-rec-negatives", "lc-rec-both"]
    assert rows[5:] == [
        "conrec-translation",
        "conrec-alignment",
        "conrec-sft",
        "conrec-grpo-1",
        "conrec-grpo-2",
        "conrec",
    ]


def test_chosen_rows_stand_in_the_order_of_the_table() -> None:
    chosen = {"baselines": {"rows": ["ease", "most-disliked"]}, "run": {"conrec": False}}
    assert rows_of(Config.model_validate(chosen)) == ["most-disliked", "ease"]
    with pytest.raises(ValueError, match="Did you mean 'ease'"):
        Config.model_validate({"baselines": {"rows": ["eas"]}})


def test_the_registry_has_every_row_in_order() -> None:
    assert tuple(REGISTRY) == BASELINES
    assert all(entry.start in {"", TRANSLATION, *BASELINES} for entry in REGISTRY.values())


@pytest.mark.parametrize(
    ("contexts", "labels"),
    [
        (("both",), ["+ GRPO, all feedback"]),
        (("both", "both"), ["+ GRPO 1, all feedback", "+ GRPO 2, all feedback"]),
        (("both", "recent"), ["+ GRPO, all feedback", "+ GRPO, recent negatives"]),
        (("recent", "negative", "both"), ["+ GRPO, recent negatives", "+ GRPO, all negatives", "+ GRPO, all feedback"]),
    ],
)
def test_labels_are_those_of_the_configured_stages(contexts: tuple[str, ...], labels: list[str]) -> None:
    config = config_of(*contexts)
    rows = conrec_rows(config)
    assert [row_label(name, config) for name in rows[3:]] == labels
    assert rows[-1] == "conrec"
    assert row_label("sasrec", config) == "sasrec"


def test_alignment_without_samples_is_no_stage(tmp_path) -> None:
    config = load_config("tiny", overrides={"alignment": {"samples": 0}, "baselines": {"rows": []}})
    assert conrec_rows(config)[:2] == ["conrec-translation", "conrec-sft"]
    assert row_label("conrec-grpo-1", config) == "+ GRPO, recent negatives"
    stages = {stage.name: stage for stage in Chain(Workspace(tmp_path, config)).stages()}
    assert not [name for name in stages if "alignment" in name]
    assert "models/conrec-translation/model" in stages["train conrec-sft"].inputs


def test_stages_of_another_configuration_are_left_out_and_strangers_stay() -> None:
    given = ["zebra", "conrec", "conrec-grpo-1", "conrec-grpo-2", "conrec-grpo-mine", "sasrec"]
    assert in_order(given, config_of("recent", "both")) == [
        "sasrec",
        "conrec-grpo-1",
        "conrec",
        "conrec-grpo-mine",
        "zebra",
    ]
    assert in_order(["ease", "conrec-sft", "zebra"], Config.model_validate({"run": {"conrec": False}})) == ["zebra"]
