"""The search: what it may see, what it writes, and what it does with trials that fail and rows that cannot run."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from conrec.comparing import search as searching
from conrec.comparing import trials as trying
from conrec.comparing.chosen import with_chosen, write_chosen
from conrec.comparing.grids import Grid, grid_of
from conrec.comparing.journal import Journal, Trial, read_journal
from conrec.comparing.origin import origin
from conrec.comparing.search import search
from conrec.comparing.trials import Trials, without_test
from conrec.config import Config, dump_config, load_config
from conrec.errors import ArtefactError, ConfigError, MissingExtraError, NotApplicableError
from conrec.logs.log import Log
from tests.comparing.small import write_small

GRID = Grid("", {}, {})


@pytest.fixture(scope="module")
def config(ml100k, tmp_path_factory):
    return load_config(file=write_small(ml100k, tmp_path_factory.mktemp("log")))


@pytest.fixture(scope="module")
def folder(config, tmp_path_factory):
    """A search of two rows; later tests add to it."""
    folder = tmp_path_factory.mktemp("search")
    search(config, ("live-popularity", "sasrec"), folder, 3)
    return folder


@pytest.fixture
def fitted(monkeypatch):
    """Replace the fitting of every row by a function of (space, row); other tests see the real ones."""

    def put(fit):
        class Row:
            @classmethod
            def fit(cls, space, row):
                return fit(space, row)

        monkeypatch.setattr(trying, "baseline_class", lambda row: Row)

    return put


def trials_in(folder, row):
    return json.loads((folder / f"{row}.json").read_text())["trials"]


def test_the_test_period_is_not_there_to_be_seen(prepared_ml100k):
    shown = without_test(prepared_ml100k)
    assert (shown.log.timestamp < prepared_ml100k.periods.test).all()
    assert len(shown.log) == (prepared_ml100k.log.timestamp < prepared_ml100k.periods.test).sum()
    assert set(np.unique(shown.anchors.split)) == {0, 1}
    assert shown.log.n_items == prepared_ml100k.log.n_items


def test_another_test_period_changes_no_trial(config, folder, fitted, monkeypatch):
    trials = Trials.on(folder / "run", config)
    plain = [trials.run(config, row, GRID, {}).value for row in ("live-popularity", "sasrec")]
    read = trying.read_prepared

    def altered(run):
        found = read(run)
        log, late = found.log, found.log.timestamp >= found.periods.test
        item = np.where(late, log.item[::-1], log.item)
        feedback = np.where(late, -1, log.feedback)
        other = Log.from_columns(log.user_ids, log.item_ids, log.user, item, log.timestamp, feedback)
        return replace(found, log=other)

    monkeypatch.setattr(trying, "read_prepared", altered)
    trials = Trials.on(folder / "run", config)
    assert [trials.run(config, row, GRID, {}).value for row in ("live-popularity", "sasrec")] == plain


def test_judged_anchors_are_a_seeded_sample_of_the_validation_period(config, folder):
    every = Trials.on(folder / "run", config).judged
    few = config.model_copy(update={"search": config.search.model_copy(update={"anchors": 5})})
    some = Trials.on(folder / "run", few).judged
    assert len(some) == 5 < len(every)
    assert (some.anchor_id == Trials.on(folder / "run", few).judged.anchor_id).all()
    assert set(some.anchor_id) < set(every.anchor_id)
    assert (every.split == 1).all()


def test_the_choice_is_a_configuration_that_says_where_it_comes_from(config, folder):
    chosen = load_config(file=folder / "chosen.toml")
    for row, section in (("sasrec", chosen.baselines.sasrec), ("live-popularity", chosen.baselines.popularity)):
        tried = trials_in(folder, row)
        assert len(tried) == 3
        best = max(tried, key=lambda one: one["value"])
        assert {name: getattr(section, name) for name in best["settings"]} == best["settings"]
        record = chosen.search.chosen[row]
        assert (record.trials, record.data, record.value) == (3, "table", best["value"])
        assert record.settings == best["settings"]
    assert chosen.baselines.sasrec.epochs == 2  # as configured
    assert chosen.data == config.data
    assert chosen.baselines.rows == Config().baselines.rows
    assert origin(chosen, "live-popularity") == "search, 3 trials on table"
    assert origin(chosen, "sasrec") == "search, 3 trials on table; epochs = 2"
    assert origin(Config(), "sasrec") == "defaults"
    assert origin(chosen, "conrec-sft") == origin(chosen, "most-disliked") == ""


def test_settings_changed_after_a_search_are_not_called_searched(folder):
    values = trials_in(folder, "live-popularity")[0]["settings"]
    by_hand = load_config(
        file=folder / "chosen.toml", overrides={"baselines": {"popularity": {"days": values["days"] + 1}}}
    )
    assert origin(by_hand, "live-popularity").startswith(f"days = {values['days'] + 1}")


def test_a_setting_that_is_chosen_not_to_be_given_is_written(config, tmp_path):
    """TOML has no null; what the default gives must be taken away in words."""
    grid = grid_of(config, "ease")
    assert grid.first["training_half_life_days"] is not None
    best = {**grid.first, "training_half_life_days": None}
    chosen = with_chosen(config, Journal("ease", {}, [Trial(grid.first, 0.2), Trial(best, 0.3)]), 2)
    path = write_chosen(tmp_path, chosen)
    assert 'training_half_life_days = "none"' in path.read_text()
    again = load_config(file=path)
    assert again.baselines.ease.training_half_life_days is None
    assert again.baselines.ease == chosen.baselines.ease
    assert load_config(overrides={"baselines": {"ease": {"training_half_life_days": "none"}}}).baselines.ease != (
        config.baselines.ease
    )
    assert origin(again, "ease") == "search, 2 trials on table"
    (tmp_path / "whole.toml").write_text(dump_config(again))
    assert load_config(file=tmp_path / "whole.toml") == again
    with pytest.raises(ConfigError, match="threads"):
        load_config(overrides={"run": {"threads": "nine"}})


def test_a_row_that_ranks_nothing_is_judged_by_its_candidates(config, folder, fitted):
    class Choosy:
        unranked = "too many titles"

        def score(self, log, queries, candidates):
            return np.where(candidates == asked[:, None], 1.0, 0.0).astype(np.float32)

    fitted(lambda space, row: Choosy())
    trials = Trials.on(folder / "run", config)
    asked = trials.judged.next_item
    assert trials.run(config, "tallrec", GRID, {}).value == 1.0


def test_a_larger_budget_adds_to_what_was_tried(config, folder):
    before = trials_in(folder, "live-popularity")
    found = search(config, ("live-popularity",), folder, 50)
    after = trials_in(folder, "live-popularity")
    assert after[:3] == before
    assert len(after) == 9  # the whole grid
    assert found.to_json()["rows"]["live-popularity"]["best"] == max(one["value"] for one in after)
    assert "sasrec" in load_config(file=folder / "chosen.toml").search.chosen
    words = [row[:3] for row in found.listing().rows]
    assert words[0][:2] == ("live-popularity", "9")
    assert words[0][2].startswith("days = ")


def test_other_settings_are_refused_and_nothing_is_lost(config, folder):
    before = (folder / "sasrec.json").read_bytes()
    sasrec = config.baselines.sasrec.model_copy(update={"epochs": 3})
    other = config.model_copy(update={"baselines": config.baselines.model_copy(update={"sasrec": sasrec})})
    with pytest.raises(ArtefactError, match=r"sasrec\.json: its trials are of other settings"):
        search(other, ("sasrec",), folder, 3)
    assert (folder / "sasrec.json").read_bytes() == before


def test_a_folder_is_of_one_log(ml100k, config, folder, tmp_path):
    """Two rows, two logs, one --out: the second search would stamp its own log on what was chosen on the first."""
    other = load_config(file=write_small(ml100k, tmp_path, users=40))
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock"]
    before = [(path, path.read_bytes()) for path in files]
    with pytest.raises(ArtefactError, match=r"live-popularity\.json: its trials are of other data"):
        search(other, ("ease",), folder, 2)
    assert [(path, path.read_bytes()) for path in files] == before
    assert not (folder / "ease.json").exists()


def test_another_encoder_is_another_folder(config, folder):
    other = config.model_copy(update={"rqvae": config.rqvae.model_copy(update={"latent_dim": 4})})
    with pytest.raises(ArtefactError, match=r"its trials are of other items; expected one log"):
        search(other, ("ease",), folder, 2)


def test_trials_of_other_settings_are_left_out_of_what_is_chosen(config, folder, capsys):
    sasrec = config.baselines.sasrec.model_copy(update={"epochs": 3})
    other = config.model_copy(update={"baselines": config.baselines.model_copy(update={"sasrec": sasrec})})
    search(other, ("live-popularity",), folder, 3)
    assert "sasrec: left out of what is chosen, its trials are of other settings" in capsys.readouterr().err
    assert list(load_config(file=folder / "chosen.toml").search.chosen) == ["live-popularity"]
    search(config, ("live-popularity",), folder, 3)
    assert list(load_config(file=folder / "chosen.toml").search.chosen) == ["live-popularity", "sasrec"]


def test_a_budget_is_of_the_rows_that_are_asked_for(config, folder):
    tried = len(trials_in(folder, "sasrec"))
    assert tried > 1
    search(config, ("live-popularity",), folder, 1)
    chosen = load_config(file=folder / "chosen.toml").search.chosen
    assert (chosen["live-popularity"].trials, chosen["sasrec"].trials) == (1, tried)


def test_a_search_goes_on_with_another_number_of_threads(config, folder, monkeypatch):
    """As on a machine with more cores."""
    monkeypatch.setattr(searching._Searcher, "_finish", lambda *_: None)  # data and items need not be made again
    before, threads = trials_in(folder, "sasrec"), torch.get_num_threads()
    more = config.model_copy(update={"run": config.run.model_copy(update={"threads": 2})})
    try:
        search(more, ("sasrec",), folder, len(before))
    finally:
        torch.set_num_threads(threads)
    assert trials_in(folder, "sasrec") == before


def test_a_row_whose_start_alone_changed_is_searched_anew(config, folder, fitted, monkeypatch, capsys):
    """`mini-one-rec` is tuned from what was chosen for `lc-rec-negatives`."""

    class Answers:
        unranked = "made up"

        def score(self, log, queries, candidates):
            return np.zeros(candidates.shape, dtype=np.float32)

    fitted(lambda space, row: Answers())
    finished = []
    finish = searching._Searcher._finish

    def without_training(self, manifests, row=None):
        if row is None:
            finish(self, manifests)
        else:
            finished.append((row, list(manifests)))

    monkeypatch.setattr(searching._Searcher, "_finish", without_training)

    def mini(lc_rec_epochs):
        changed = config.baselines.lc_rec_negatives.model_copy(update={"epochs": lc_rec_epochs})
        baselines = config.baselines.model_copy(update={"lc_rec_negatives": changed})
        return config.model_copy(update={"baselines": baselines})

    search(mini(3), ("mini-one-rec",), folder, 2)
    starts = ["models/conrec-translation.train.json", "models/lc-rec-negatives.train.json"]
    assert finished == [("mini-one-rec", starts)]
    first = (folder / "mini-one-rec.json").read_bytes()
    search(mini(3), ("mini-one-rec",), folder, 2)
    assert len(finished) == 1  # nothing left to try, so that no start is trained
    search(mini(4), ("live-popularity",), folder, 1)
    assert "mini-one-rec: left out of what is chosen, its trials are of other start" in capsys.readouterr().err
    assert "mini-one-rec" not in load_config(file=folder / "chosen.toml").search.chosen
    search(mini(4), ("mini-one-rec",), folder, 1)
    assert "earlier trials: mini-one-rec.before-1.json" in capsys.readouterr().err
    assert (folder / "mini-one-rec.before-1.json").read_bytes() == first
    assert len(trials_in(folder, "mini-one-rec")) == 1
    assert "mini-one-rec" in load_config(file=folder / "chosen.toml").search.chosen


def test_a_log_without_validation_anchors_is_refused(config, folder, monkeypatch):
    read = trying.read_prepared

    def without(run):
        found = read(run)
        return replace(found, anchors=found.anchors.select(found.anchors.split != 1))

    monkeypatch.setattr(trying, "read_prepared", without)
    with pytest.raises(ConfigError, match=r"protocol: the validation period of this log has no anchor"):
        search(config, ("live-popularity",), folder, 3)


def test_a_figure_that_is_no_number_is_a_failed_trial(config, folder, monkeypatch):
    monkeypatch.setattr(trying, "fhr", lambda top, negatives: np.array([np.nan]))
    one = Trials.on(folder / "run", config).run(config, "live-popularity", GRID, {})
    assert (one.value, one.error) == (None, "the figure that it is judged by is nan")


def test_settings_of_every_section_have_an_origin():
    popularity = load_config(overrides={"baselines": {"popularity": {"days": 7}}})
    assert origin(popularity, "category-rule") == "baselines.popularity.days = 7"
    assert origin(popularity, "ease") == "defaults"
    language = load_config(overrides={"sft": {"epochs": 9}, "prompts": {"max_events": 77}})
    assert origin(language, "lc-rec-both") == "sft.epochs = 9, prompts.max_events = 77"
    assert origin(language, "tallrec") == "prompts.max_events = 77"


def test_a_trial_that_fails_is_written_down_and_the_search_goes_on(config, folder, fitted):
    real = trying.baseline_class("sasrec")
    calls = []

    def fit(space, row):
        calls.append(row)
        if len(calls) == 1:
            raise FloatingPointError("the loss is not a number")
        return real.fit(space, row)

    fitted(fit)
    (folder / "sasrec.json").unlink()
    row = search(config, ("sasrec",), folder, 3).to_json()["rows"]["sasrec"]
    assert (row["trials"], row["failed"], row["configured"]) == (3, 1, None)
    assert row["best"] > 0
    assert trials_in(folder, "sasrec")[0]["error"] == "FloatingPointError: the loss is not a number"


def test_a_row_that_the_log_does_not_allow_is_said_and_not_tried_again(config, folder, fitted):
    calls = []

    def fit(space, row):
        calls.append(row)
        raise NotApplicableError("no item has a title")

    fitted(fit)
    for _ in range(2):
        found = search(config, ("sasrec-gbce",), folder, 3)
        assert found.to_json()["rows"]["sasrec-gbce"]["not_applicable"] == "no item has a title."
        assert found.listing().rows[0][2] == "no item has a title."
    assert len(calls) == 1
    assert "sasrec-gbce" not in load_config(file=folder / "chosen.toml").search.chosen


@pytest.mark.parametrize("error", [MissingExtraError("x", "train"), OSError(28, "No space left on device")])
def test_what_the_user_can_mend_is_no_failed_trial(config, folder, fitted, error):
    def fit(space, row):
        raise error

    fitted(fit)
    with pytest.raises(type(error)):
        search(config, ("sasrec-sampled",), folder, 3)
    assert not (folder / "sasrec-sampled.json").exists()


def test_the_first_of_equal_trials_is_chosen():
    journal = Journal("row", {}, [Trial({"a": 1}, None), Trial({"a": 2}, 0.5), Trial({"a": 3}, 0.5), Trial({}, 0.7)])
    best = journal.best(3)
    assert best is not None
    assert best.settings == {"a": 2}
    assert journal.best(1) is None


def test_a_damaged_journal_is_named(tmp_path):
    path = tmp_path / "ease.json"
    for text in ("{", "{}", '{"trials": 3}'):
        path.write_text(text)
        with pytest.raises(ArtefactError, match=r"ease\.json"):
            read_journal(path, "ease", {})


def test_bad_input(config, folder, monkeypatch):
    with pytest.raises(ConfigError, match=r"no row 'sasrek'\. Did you mean 'sasrec'"):
        search(config, ("sasrek",), folder, 3)
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.setattr(searching, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"conrec\[search\]"):
        search(config, ("sasrec",), folder, 3)
