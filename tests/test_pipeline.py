"""Stages: finished or not there, run again when what goes in changes, and one process a run."""

from __future__ import annotations

import errno
from dataclasses import replace

import pytest

from conrec.artefacts import read_json
from conrec.errors import ArtefactError, RunLockedError
from conrec.folders import locked, replacing_folder
from conrec.pipeline import Pipeline, Stage
from conrec.processes import Processes


@pytest.fixture
def calls():
    return []


def stages(folder, calls, setting=1):
    """Two stages: one writes a number, the other doubles it into a folder."""

    def write():
        calls.append("write")
        (folder / "a.txt").write_text(str(setting))

    def double():
        calls.append("double")
        with replacing_folder(folder / "b") as temporary:
            (temporary / "value").write_text(str(2 * int((folder / "a.txt").read_text())))

    return [
        Stage("write", "a.manifest.json", (), ("a.txt",), {"setting": setting}, write),
        Stage("double", "b.manifest.json", ("a.txt",), ("b",), None, double),
    ]


def test_finished_stages_are_not_run_again(tmp_path, calls):
    Pipeline(tmp_path).run(stages(tmp_path, calls))
    Pipeline(tmp_path).run(stages(tmp_path, calls))
    assert calls == ["write", "double"]
    assert set(read_json(tmp_path / "timings.json")) == {"write", "double"}


def test_another_setting_runs_its_stage_and_what_depends_on_it(tmp_path, calls):
    Pipeline(tmp_path).run(stages(tmp_path, calls))
    Pipeline(tmp_path).run(stages(tmp_path, calls, setting=5))
    assert calls == ["write", "double"] * 2
    assert (tmp_path / "b" / "value").read_text() == "10"


@pytest.mark.parametrize("damage", ["changed", "removed", "manifest"])
def test_a_damaged_output_is_made_again(tmp_path, calls, damage):
    Pipeline(tmp_path).run(stages(tmp_path, calls))
    if damage == "changed":
        (tmp_path / "b" / "value").write_text("999")
    elif damage == "removed":
        (tmp_path / "b" / "value").unlink()
    else:
        (tmp_path / "b.manifest.json").write_text("{ cut sh")
    Pipeline(tmp_path).run(stages(tmp_path, calls))
    assert calls == ["write", "double", "double"]
    assert (tmp_path / "b" / "value").read_text() == "2"


def test_a_full_disk_leaves_the_last_finished_stage_intact(tmp_path, calls):
    first, second = stages(tmp_path, calls)

    def full():
        with replacing_folder(tmp_path / "b") as temporary:
            (temporary / "value").write_text("half")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        Pipeline(tmp_path).run([first, Stage("double", "b.manifest.json", ("a.txt",), ("b",), None, full)])
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.manifest.json", "a.txt"]
    Pipeline(tmp_path).run([first, second])
    assert calls == ["write", "double"]


def test_a_stage_that_does_not_write_what_it_promises_is_not_finished(tmp_path):
    with pytest.raises(ArtefactError, match=r"c\.txt: the stage 'lazy' did not write it"):
        Pipeline(tmp_path).run([Stage("lazy", "c.manifest.json", (), ("c.txt",), None, lambda: None)])
    assert not (tmp_path / "c.manifest.json").exists()


def test_what_will_run_again_is_seen_beforehand(tmp_path, calls):
    """By settings, and by what reads the files of a changed stage; a file that was damaged may come out as it was."""

    def again(setting=1):
        return [stage.name for stage in Pipeline(tmp_path).outdated(stages(tmp_path, calls, setting))]

    assert again() == ["write", "double"]
    Pipeline(tmp_path).run(stages(tmp_path, calls))
    assert again() == []
    assert again(setting=5) == ["write", "double"]
    (tmp_path / "a.txt").write_text("damaged")
    assert again() == []
    (tmp_path / "b.manifest.json").write_text("{ cut sh")
    assert again() == ["double"]
    Pipeline(tmp_path).run(stages(tmp_path, calls, setting=5))
    (tmp_path / "b.manifest.json").unlink()
    assert again(setting=5) == ["double"]
    assert again() == ["write", "double"]


def test_a_stage_that_read_other_files_than_there_are_now_is_seen(tmp_path, calls):
    Pipeline(tmp_path).run(stages(tmp_path, calls))
    kept = (tmp_path / "b.manifest.json").read_bytes()
    Pipeline(tmp_path).run(stages(tmp_path, calls, setting=5))
    (tmp_path / "b.manifest.json").write_bytes(kept)
    assert [stage.name for stage in Pipeline(tmp_path).outdated(stages(tmp_path, calls, 5))] == ["double"]


def test_what_stages_of_another_list_wrote_is_removed(tmp_path):
    def stage(name, *files):
        def work():
            for one in files:
                (tmp_path / one).parent.mkdir(exist_ok=True)
                (tmp_path / one).write_text(name)

        return Stage(name, f"results/{name}.manifest.json", (), files, None, work)

    kept, gone = stage("kept", "results/kept.json"), stage("gone", "results/gone.json", "models/gone")
    Pipeline(tmp_path).run([kept, gone])
    (tmp_path / "results" / "mine.json").write_text("by hand")
    (tmp_path / "results" / "damaged.manifest.json").write_text("{ cut sh")
    Pipeline(tmp_path).clear_unlisted("results", [kept])
    left = ["kept.json", "kept.manifest.json", "mine.json"]
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == left
    assert (tmp_path / "models" / "gone").exists()


class Told(Processes):
    """The second of two processes, which is told whether a shared stage has to be done."""

    def __init__(self, words):
        super().__init__(rank=1, world=2)
        self.words = list(words)

    def decide(self, value=None):
        assert value is None
        return self.words.pop(0)


@pytest.mark.parametrize(("word", "done"), [(True, ["help"]), (False, [])])
def test_another_process_helps_in_shared_stages_alone_and_writes_nothing(tmp_path, calls, word, done):
    first, second = stages(tmp_path, calls)
    shared = Stage("share", "c.manifest.json", (), ("c",), None, lambda: calls.append("help"), shared=True)
    told = Told([word])
    Pipeline(tmp_path, told).run([first, shared, second])
    assert calls == done
    assert not told.words
    assert not list(tmp_path.iterdir())


class First(Processes):
    """The first of two processes; nobody listens."""

    def decide(self, value=None):
        return value


def test_a_manifest_says_how_many_processes_did_the_stage(tmp_path, calls):
    """A run may go on with another number of them; finished stages stay as they are, and say with how many."""

    def of():
        first, second = stages(tmp_path, calls)
        return [first, replace(second, shared=True)]

    Pipeline(tmp_path, First(rank=0, world=2)).run(of())
    for processes in (First(rank=0, world=2), First(rank=0, world=3), Processes()):
        Pipeline(tmp_path, processes).run(of())
    assert calls == ["write", "double"]
    assert [read_json(tmp_path / f"{name}.manifest.json")["processes"] for name in "ab"] == [1, 2]


def test_one_process_works_in_a_run_and_clears_what_a_killed_one_left(tmp_path):
    left = tmp_path / "models" / ".sasrec.tmp"
    left.mkdir(parents=True)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / ".events.parquet.12ab.tmp").write_text("half")
    with locked(tmp_path):
        assert not left.exists()
        assert not list((tmp_path / "data").iterdir())
        with pytest.raises(RunLockedError, match="another process"), locked(tmp_path):
            pass
    with locked(tmp_path):
        pass


def test_long_work_goes_on_from_what_it_kept_while_nothing_else_changed(tmp_path):
    """Its folder is emptied for other settings, and gone at the end; earlier seconds are counted."""
    seen, place = [], tmp_path / "a.unfinished"

    def work(fails):
        seen.append(sorted(one.name for one in place.iterdir()))
        if fails:
            (place / "half").write_text("so far")
            (place / "seconds.json").write_text("100")
            raise KeyboardInterrupt
        (tmp_path / "a.txt").write_text("whole")

    def attempt(setting, fails):
        stage = Stage("a", "a.json", (), ("a.txt",), setting, lambda: work(fails), partial=place.name)
        pipeline = Pipeline(tmp_path)
        if fails:
            with pytest.raises(KeyboardInterrupt):
                pipeline.run([stage])
        else:
            pipeline.run([stage])
        return pipeline.seconds

    attempt(1, fails=True)
    attempt(1, fails=True)
    attempt(2, fails=True)
    assert 100 <= attempt(2, fails=False)["a"] < 110
    kept = ["half", "key.json", "seconds.json"]
    assert seen == [["key.json"], kept, ["key.json"], kept]
    assert not place.exists()
    attempt(2, fails=False)  # finished: nothing is done
    assert len(seen) == 4
