"""A full disk has one name, whichever library met it; what was there before stays."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import lmdb
import numpy as np
import pytest

from conrec.artefacts import disk_full, read_tensors, saying_disk_full, write_tensors

WRITERS = {
    "tensors": """
from conrec.artefacts import write_tensors
def write(folder, size):
    write_tensors(folder / "big.safetensors", {"x": np.zeros(size * 50, dtype=np.float32)})
""",
    "predict sets": """
from conrec.filtering.stores.base import Origin
from conrec.filtering.stores.writer import write_store
def write(folder, size):
    users = [f"user {n}" for n in range(size)]
    codes = np.zeros((size, 20, 3), dtype=np.int32)
    write_store(folder / "s", users, codes, np.zeros((size, 20)), Origin("m", "", "h", "", (4, 4, 4)))
""",
}
PROGRAM = """
import errno, resource, sys
from pathlib import Path
import numpy as np
from conrec.artefacts import disk_full, hash_file
{writer}
folder = Path(sys.argv[1])
write(folder, 10)
before = hash_file(folder)
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
try:
    write(folder, 5000)
except OSError as error:
    assert disk_full(error), error
    assert error.errno in (errno.ENOSPC, errno.EFBIG), error
    assert hash_file(folder) == before, "the old files are as they were"
    print("full")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of this kind")
@pytest.mark.parametrize("name", WRITERS)
def test_a_file_that_cannot_grow_is_a_full_disk(tmp_path: Path, name: str) -> None:
    program = PROGRAM.replace("{writer}", WRITERS[name])
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "full\n"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, "as Python says it"), True),
        (OSError(errno.EDQUOT, "as Python says it"), True),
        (OSError(errno.EFBIG, "as Python says it"), True),
        (OSError(errno.EACCES, "/mnt/No space left on device/x"), False),
        (RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"), True),
        (lmdb.DiskError("mdb_txn_commit: No space left on device"), True),
        (lmdb.Error("mdb_txn_commit: Disk quota exceeded"), True),
        (lmdb.MapFullError("mdb_put: MDB_MAP_FULL: Environment mapsize limit reached"), False),
        (RuntimeError("I/O error (os error 281)"), False),
        (ValueError("something else"), False),
    ],
)
def test_what_is_a_full_disk(error: Exception, expected: bool) -> None:
    assert disk_full(error) is expected


def test_only_a_full_disk_is_renamed(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as caught, saying_disk_full(tmp_path / "x"):
        raise RuntimeError("no space left on device")
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(tmp_path / "x")
    for other in (ValueError("anything else"), PermissionError(errno.EACCES, "denied")):
        with pytest.raises(type(other)), saying_disk_full(tmp_path):
            raise other


def test_arrays_that_are_views_are_written_as_they_read(tmp_path: Path) -> None:
    rows = np.arange(12, dtype=np.float32).reshape(3, 4)
    tensors = {"turned": rows.T[::-1], "number": np.asarray(7.0), "column": rows[:, 1]}
    write_tensors(tmp_path / "a.safetensors", tensors)
    found = read_tensors(tmp_path / "a.safetensors")
    assert {name: one.tolist() for name, one in found.items()} == {name: one.tolist() for name, one in tensors.items()}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other rights")
@pytest.mark.parametrize("mask", [0o022, 0o027, 0o002])
def test_tensors_have_the_rights_of_any_other_file(tmp_path: Path, mask: int) -> None:
    """safetensors alone gives the file to its owner alone: nobody else could serve the run."""
    before = os.umask(mask)
    try:
        write_tensors(tmp_path / "x.safetensors", {"x": np.zeros(3)})
        (tmp_path / "plain").touch()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x.safetensors").stat().st_mode) == 0o666 & ~mask
    assert (tmp_path / "x.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode
