"""Images from a server of our own, which behaves badly in every way it can."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from conrec.config import ImageConfig
from conrec.items.encoders.addresses import AddressError, fetch_bytes
from conrec.items.encoders.images import ImageError, read_image
from tests.items.encoders.small_models import file_of, picture

PNG = file_of(picture(1))


class Handler(BaseHTTPRequestHandler):
    """Answers by path."""

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path[4:])
            self.end_headers()
        elif path in ("/404", "/500"):
            self.send_error(int(path[1:]))
        elif path == "/drip-head":
            self._drip(b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 1000)
        elif path == "/drip-body":
            self._drip(b"x" * 1000, b"HTTP/1.0 200 OK\r\n\r\n")
        elif path == "/endless":
            self.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n")
            self._drip(b"x" * (1 << 22), size=1 << 16, wait=0.0)
        elif path == "/short":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\nabc")
        elif path == "/garbage":
            self.wfile.write(b"\x00\x01\x02 nothing that is HTTP\r\n\r\n")
        elif path in ("/%C3%A4%20b.png", "/a.png"):
            self._whole(PNG)
        else:
            self._whole(b"<html>no such page</html>")

    def _whole(self, data: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _drip(self, data: bytes, first: bytes = b"", size: int = 1, wait: float = 0.05) -> None:
        try:
            self.wfile.write(first)
            for begin in range(0, len(data), size):
                self.wfile.write(data[begin : begin + size])
                time.sleep(wait)
        except OSError:
            return  # cut off, as it should be

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.daemon_threads = True
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{made.server_port}"
    made.shutdown()
    made.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy between the test and its own server."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def test_an_image_from_an_address(server: str) -> None:
    config = ImageConfig(addresses=True)
    for path in ("a.png", "a.png?size=2#top", "ä b.png", "to//a.png", f"to/{server}/a.png"):
        assert read_image(f"{server}/{path}", config).size == (40, 60)


def test_what_addresses_give_instead(server: str) -> None:
    config = ImageConfig(addresses=True, timeout_seconds=0.5, max_bytes=1000)
    reasons = {}
    for path in (
        "404",
        "500",
        "short",
        "garbage",
        "endless",
        "none",
        "to/ftp://127.0.0.1/a",
        "to/file:///etc/hostname",
    ):
        with pytest.raises(ImageError) as caught:
            read_image(f"{server}/{path}", config)
        reasons[path] = caught.value.reason
    assert reasons.pop("endless") == "too many bytes"
    assert reasons.pop("none") == "not an image"
    assert set(reasons.values()) == {"unreadable address"}


@pytest.mark.parametrize("path", ["drip-head", "drip-body"])
def test_a_server_that_sends_a_byte_now_and_then_is_cut_off(server: str, path: str) -> None:
    begin = time.monotonic()
    with pytest.raises(AddressError, match=r"0\.4 s"):
        fetch_bytes(f"{server}/{path}", 10_000, 0.4)
    assert time.monotonic() - begin < 5


def test_a_server_that_says_nothing_and_one_that_is_not_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(AddressError, match=r"no answer in 0\.3 s"):
            fetch_bytes(f"http://127.0.0.1:{port}/", 100, 0.3)
    with pytest.raises(AddressError, match="refused"):
        fetch_bytes(f"http://127.0.0.1:{port}/", 100, 1.0)


@pytest.mark.parametrize(
    "address", ["http://", "http://[::1", "http://a b/", "http://127.0.0.1:99999/", "http://a\nb/"]
)
def test_addresses_that_cannot_be(address: str) -> None:
    with pytest.raises(AddressError):
        fetch_bytes(address, 100, 0.5)


def test_no_more_than_the_limit_is_read(server: str) -> None:
    assert len(fetch_bytes(f"{server}/endless", 1000, 5.0)) == 1001
