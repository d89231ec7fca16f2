"""Folders that are replaced as a whole, and that one process at a time works in. No torch needed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from conrec.errors import RunLockedError

__all__ = ["held", "locked", "replacing_folder"]


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that takes the place of ``folder`` when the block ends well."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if folder.exists():
            shutil.rmtree(folder)
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the run's lock, and clear away what a killed process left under temporary names.

    Raises:
        RunLockedError: another process holds it.
    """
    with held(folder, "Wait for it, or give another --out."):
        # Ours are ".NAME.…tmp"; safetensors writes under ".tmp…" before it renames to ours.
        for left in [one for depth in ("", "*/", "*/*/") for one in folder.glob(f"{depth}.*tmp*")]:
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)
        yield


@contextmanager
def held(folder: Path, mend: str = "Wait for it.", what: str = "run") -> Iterator[None]:
    """Hold the lock of a run, or of another folder (``what``, for the message), and leave everything as it is.

    Raises:
        RunLockedError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise RunLockedError(f"another process is working in this {what}", where=str(folder), mend=mend) from None
    try:
        yield
    finally:
        lock.release()
