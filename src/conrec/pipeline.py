"""Stages that finish or leave nothing behind: what went in is hashed, what came out is renamed into place.

A stage is finished when its manifest is there, fits what goes in now, and what came out is unchanged.
Anything else, a kill at any moment or a full disk among the reasons, makes the same command do the stage
again, from its beginning or from what long work has kept of itself; since every stage depends on its inputs, settings
and seed alone, the end is the same.
(Up to rounding it also depends on the number of processes; that is noted, and makes no finished stage unfinished.)

Several processes may walk through the stages of one run. The first one says which are finished, does those that are
one process's work and writes all files; the others wait for the stages that are shared, and help there.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conrec import __version__
from conrec.artefacts import hash_file, hash_json, read_json, write_json
from conrec.errors import ArtefactError, NotApplicableError
from conrec.processes import ALONE, Processes
from conrec.progress import console

__all__ = ["Pipeline", "Stage", "skipped"]


def skipped(manifest: Path) -> str | None:
    """Why a stage was left out for the log of its run; None where it was not, or is not finished."""
    if not manifest.is_file():
        return None
    try:
        why = read_json(manifest).get("skipped")
    except (ArtefactError, AttributeError):
        return None
    return None if why is None else str(why)


def _may_fit(stage: Stage, manifest: dict[str, Any], known: dict[str, str]) -> bool:
    """Whether a stage with this manifest can be finished, where ``known`` is what earlier stages have written."""
    inputs: dict[str, str] = manifest["inputs"]
    same = [stage.name, __version__, stage.settings, sorted(stage.inputs), sorted(stage.outputs)]
    made = [
        *(manifest.get(name) for name in ("stage", "version", "settings")),
        sorted(inputs),
        sorted(manifest["outputs"]),
    ]
    return hash_json(same) == hash_json(made) and all(known.get(name, one) == one for name, one in inputs.items())


@dataclass(frozen=True)
class Stage:
    """One step of a run.

    Attributes:
        name: what the user reads.
        manifest: path of its manifest, relative to the run.
        inputs: files and folders it reads, relative to the run.
        outputs: files and folders it writes, relative to the run.
        settings: JSON value of every setting that its result depends on.
        work: writes the outputs; or raises NotApplicableError and writes none, and the run goes on.
        shared: whether all processes of the run do the work together; only the first one writes.
        partial: a folder, relative to the run, in which long work keeps what it has so far. It is emptied where the
            settings, the inputs or the version changed, and removed once the stage is finished. A file
            ``seconds.json`` in it says how long it took to get there.
    """

    name: str
    manifest: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    settings: Any
    work: Callable[[], None]
    shared: bool = False
    partial: str | None = None


@dataclass
class Pipeline:
    """Runs stages in order in one folder.

    Attributes:
        folder: of the run.
        processes: those that walk through the same stages.
        seconds: duration of each stage, taken from its manifest where it was finished before.
    """

    folder: Path
    processes: Processes = ALONE
    seconds: dict[str, float] = field(default_factory=dict)
    _hashes: dict[tuple[str, int, int], str] = field(default_factory=dict)

    def run(self, stages: Sequence[Stage], then: Callable[[], None] | None = None) -> None:
        """Run every stage that is not finished, and print a line for each.

        Args:
            stages: in order; an input of one is an output of an earlier one.
            then: called once the first stage is finished.

        Raises:
            ArtefactError: a stage ended without writing what it promises.
            PeerError: another process of the run ended.
        """
        if not self.processes.first:
            for stage in stages:
                if stage.shared and self.processes.decide():
                    stage.work()
            return
        for number, stage in enumerate(stages, start=1):
            head = f"[{number:>2}/{len(stages)}] {stage.name:<34}"
            key = self._key(stage)
            done = self._finished(stage, key)
            if done is None:
                self._prepare_partial(stage, key)
            if stage.shared:
                self.processes.decide(done is None)
            if done is not None:
                self.seconds[stage.name] = done
                console.print(f"{head} finished before ({done:.1f} s)", markup=False, highlight=False)
            else:
                self.seconds[stage.name] = self._do(stage, key)
                console.print(f"{head} {self.seconds[stage.name]:6.1f} s", markup=False, highlight=False)
            if (why := skipped(self.folder / stage.manifest)) is not None:
                console.print(f"        not for this log: {why}", markup=False, highlight=False, soft_wrap=True)
            if then is not None and number == 1:
                then()
        write_json(self.folder / "timings.json", self.seconds)

    def _do(self, stage: Stage, key: str) -> float:
        """Run one stage; the seconds that it took, those of earlier attempts that it goes on from among them.

        What an earlier attempt or another configuration left is removed first, so that nothing stale is read.
        """
        path = self.folder / stage.manifest
        self.clear(stage.manifest, stage.outputs)
        begin, why = time.perf_counter() - self._earlier(stage), None
        try:
            stage.work()
        except NotApplicableError as error:
            why = str(error)
        seconds = round(time.perf_counter() - begin, 2)
        missing = [name for name in stage.outputs if not (self.folder / name).exists()]
        if missing and why is None:
            raise ArtefactError(f"the stage {stage.name!r} did not write it", where=str(self.folder / missing[0]))
        write_json(
            path,
            {
                "stage": stage.name,
                "key": key,
                "version": __version__,
                "settings": stage.settings,
                "inputs": {name: self._hash(name) for name in stage.inputs},
                "outputs": {name: self._hash(name) for name in stage.outputs},
                "processes": self.processes.world if stage.shared else 1,
                "seconds": seconds,
                **({} if why is None else {"skipped": why}),
            },
        )
        if stage.partial is not None:
            shutil.rmtree(self.folder / stage.partial, ignore_errors=True)
        return seconds

    def _prepare_partial(self, stage: Stage, key: str) -> None:
        """Leave in a stage's folder of unfinished work only what fits what goes in now; its key is noted there."""
        if stage.partial is None:
            return
        folder = self.folder / stage.partial
        try:
            fits = read_json(folder / "key.json") == key
        except ArtefactError:
            fits = False
        if not fits:
            shutil.rmtree(folder, ignore_errors=True)
            write_json(folder / "key.json", key)

    def _earlier(self, stage: Stage) -> float:
        """Seconds of work by earlier attempts that a stage goes on from."""
        if stage.partial is None:
            return 0.0
        try:
            return float(read_json(self.folder / stage.partial / "seconds.json"))
        except (ArtefactError, TypeError, ValueError):
            return 0.0

    def clear(self, manifest: str, outputs: Iterable[str]) -> None:
        """Remove what a stage wrote, its manifest last: a kill in between leaves a stage that is seen not to fit."""
        for name in outputs:
            old = self.folder / name
            if old.is_dir():
                shutil.rmtree(old)
            else:
                old.unlink(missing_ok=True)
        (self.folder / manifest).unlink(missing_ok=True)

    def outdated(self, stages: Sequence[Stage]) -> list[Stage]:
        """The stages that are seen to run again before any of them does, by their manifests alone.

        That is those that never finished, those whose settings or inputs are others now, and all that read what such a
        changed one wrote. (What reads the files of an unfinished one may still fit: they may come out as they were.)

        Args:
            stages: in order.
        """
        again: list[Stage] = []
        anew: set[str] = set()
        known: dict[str, str] = {}
        for stage in stages:
            manifest = self._manifest(stage.manifest)
            if manifest is None:
                again.append(stage)
            elif anew.isdisjoint(stage.inputs) and _may_fit(stage, manifest, known):
                known |= manifest["outputs"]
            else:
                again.append(stage)
                anew.update(stage.outputs)
        return again

    def clear_unlisted(self, folder: str, stages: Sequence[Stage]) -> None:
        """Remove what stages that are no longer listed wrote into a folder of the run."""
        listed = {stage.manifest for stage in stages}
        kept = {name for stage in stages for name in stage.outputs}
        for path in sorted((self.folder / folder).glob("*.manifest.json")):
            name = str(path.relative_to(self.folder))
            if name not in listed:
                written = (self._manifest(name) or {}).get("outputs", {})
                self.clear(name, [one for one in written if one not in kept and one.startswith(f"{folder}/")])

    def _manifest(self, name: str) -> dict[str, Any] | None:
        """The content of a manifest, None where it is not there or none."""
        path = self.folder / name
        try:
            found = read_json(path) if path.is_file() else None
        except ArtefactError:
            return None
        whole = isinstance(found, dict) and all(isinstance(found.get(one), dict) for one in ("inputs", "outputs"))
        return found if whole else None

    def _key(self, stage: Stage) -> str:
        """What the stage's result depends on, as one hash."""
        inputs = {name: self._hash(name) for name in stage.inputs}
        return hash_json([stage.name, __version__, stage.settings, inputs, list(stage.outputs)])

    def _finished(self, stage: Stage, key: str) -> float | None:
        """Seconds that the stage took, where its manifest and outputs fit."""
        path = self.folder / stage.manifest
        if not path.is_file():
            return None
        try:
            manifest = read_json(path)
            outputs = manifest["outputs"]
            if manifest["key"] != key:
                console.print(
                    f"        {stage.name}: settings, inputs or version changed; it runs again", highlight=False
                )
                return None
            if any(self._hash(name) != value for name, value in outputs.items()):
                console.print(
                    f"        {stage.name}: its files were changed or removed; it runs again", highlight=False
                )
                return None
            return float(manifest["seconds"])
        except (ArtefactError, KeyError, TypeError, ValueError):
            return None

    def _hash(self, name: str) -> str:
        """Hash of a file or folder of the run; files are read again only when their size or time changed."""
        path = self.folder / name
        if not path.exists():
            return "absent"
        files = sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]
        stats = [(one, one.stat()) for one in files]
        token = (name, sum(stat.st_size for _, stat in stats), max((stat.st_mtime_ns for _, stat in stats), default=0))
        if token not in self._hashes:
            self._hashes[token] = hash_file(path)
        return self._hashes[token]
