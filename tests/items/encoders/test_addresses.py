"""Images from a server of our own, which behaves badly in every way it can."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from conrec.config import ImageConfig
from conrec.items.encoders import connections
from conrec.items.encoders.addresses import AddressError, fetch_bytes
from conrec.items.encoders.images import ImageError, read_image
from tests.items.encoders.small_models import file_of, picture

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
PNG = file_of(picture(1))


def fetch(address: str, max_bytes: int = 10_000, timeout: float = 5.0) -> bytes:
    """From the loopback address, where the server is."""
    return fetch_bytes(address, max_bytes, timeout, private=True)


class Handler(BaseHTTPRequestHandler):
    """Answers by path."""

    def do_GET(self) -> None:
        path = self.path.removeprefix("http://images.invalid").split("?")[0]
        if path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path[4:])
            self.end_headers()
        elif path == "/moved-large":
            self.wfile.write(b"HTTP/1.1 302 Found\r\nLocation: /a.png\r\nContent-Length: 100000000000\r\n\r\nabc")
            self.rfile.read(1)  # says no more, and stays until the other side leaves
        elif path == "/moved-endless":
            self._drip(b"x" * (1 << 22), b"HTTP/1.0 302 Found\r\nLocation: /a.png\r\n\r\n", size=1 << 16)
        elif path.startswith("/round/"):
            self.send_response(302)
            self.send_header("Location", f"/round/{int(path[7:]) + 1}")
            self.end_headers()
        elif path == "/drip-chunk":
            self._drip(b"1" + b"0" * 1000, CHUNKED)
        elif path == "/drip-trailer":
            self._drip(b"X-Late: 1\r\n" * 100, CHUNKED + b"3\r\nabc\r\n0\r\n")
        elif path == "/cut-head":
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
        elif path == "/cut-line":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/png")
        elif path == "/cut-chunk":
            self.wfile.write(CHUNKED + b"5\r\nab")
        elif path == "/chunks":
            self.wfile.write(CHUNKED + b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nX-Last: 1\r\n\r\n")
        elif path == "/secret":
            self.wfile.write(b"a secret of this machine\r\n\r\n")
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
    config = ImageConfig(addresses=True, private_addresses=True)
    for path in ("a.png", "a.png?size=2#top", "ä b.png", "to//a.png", f"to/{server}/a.png"):
        assert read_image(f"{server}/{path}", config).size == (40, 60)


def test_what_addresses_give_instead(server: str) -> None:
    config = ImageConfig(addresses=True, private_addresses=True, timeout_seconds=0.5, max_bytes=1000)
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


@pytest.mark.parametrize("path", ["drip-head", "drip-body", "drip-chunk", "drip-trailer", "to//drip-chunk"])
def test_a_server_that_sends_a_byte_now_and_then_is_cut_off(server: str, path: str) -> None:
    begin = time.monotonic()
    with pytest.raises(AddressError, match=r"0\.4 s"):
        fetch(f"{server}/{path}", 10_000, 0.4)
    assert time.monotonic() - begin < 2


def test_what_comes_with_a_redirect_is_not_read(server: str) -> None:
    for path in ("moved-large", "moved-endless"):
        begin = time.monotonic()
        assert fetch(f"{server}/{path}") == PNG
        assert time.monotonic() - begin < 2


def test_redirects_without_end(server: str) -> None:
    with pytest.raises(AddressError, match="more than 10 redirects"):
        fetch(f"{server}/round/0")


def test_what_there_is_no_memory_for_is_refused(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> bytes:
        raise MemoryError

    monkeypatch.setattr(http.client.HTTPResponse, "read1", full)
    with pytest.raises(AddressError, match="memory"):
        fetch(f"{server}/a.png")


@pytest.mark.parametrize("path", ["cut-head", "cut-line", "cut-chunk"])
def test_an_answer_that_is_cut_is_none(server: str, path: str) -> None:
    with pytest.raises(AddressError, match=r"ended within its head|IncompleteRead"):
        fetch(f"{server}/{path}")


def test_chunks(server: str) -> None:
    assert fetch(f"{server}/chunks") == b"abcde"


def test_what_a_server_sent_is_not_told(server: str) -> None:
    with pytest.raises(AddressError) as caught:
        fetch(f"{server}/secret")
    assert str(caught.value) == "an answer that is not HTTP (BadStatusLine)"
    with pytest.raises(AddressError) as caught:
        fetch(f"{server}/to/gopher://secret")
    assert "secret" not in str(caught.value)


def test_a_name_that_takes_its_time_and_then_a_head_that_does(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither alone is too long: it is one deadline."""
    look = socket.getaddrinfo

    def slow(*arguments: Any, **options: Any) -> Any:
        time.sleep(0.3)
        return look(*arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    begin = time.monotonic()
    with pytest.raises(AddressError, match=r"no answer in 0\.2 s"):
        fetch(f"{server}/a.png", timeout=0.2)
    assert time.monotonic() - begin < 0.3
    with pytest.raises(AddressError, match=r"no answer in 0\.6 s"):
        fetch(f"{server}/drip-head", timeout=0.6)
    assert time.monotonic() - begin < 2
    # Three hops, each of which looks the name up.
    with pytest.raises(AddressError, match=r"no answer in 0\.8 s"):
        fetch(f"{server}/to//to//a.png", timeout=0.8)


def test_a_handshake_that_never_ends() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        begin = time.monotonic()
        with pytest.raises(AddressError, match=r"no answer in 0\.3 s"):
            fetch(f"https://127.0.0.1:{port}/", 100, 0.3)
        assert time.monotonic() - begin < 2


def test_a_handshake_with_something_else(server: str) -> None:
    with pytest.raises(AddressError, match=r"SSL|TLS"):
        fetch(server.replace("http:", "https:"))


def test_hosts_that_are_not_public_are_refused(server: str) -> None:
    config = ImageConfig(addresses=True)
    port = server.rpartition(":")[2]
    for host in ("127.0.0.1", "localhost", "127.1", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"):
        with pytest.raises(ImageError, match="not public") as caught:
            read_image(f"http://{host}:{port}/a.png", config)
        assert caught.value.reason == "unreadable address"
    for host in ("169.254.169.254", "10.0.0.1", "192.168.1.1", "172.16.0.1", "[fe80::1]", "[fd00::1]"):
        with pytest.raises(AddressError, match="not public"):
            fetch_bytes(f"http://{host}/latest/meta-data", 100, 1.0)


def test_hosts_that_are_not_public_are_refused_behind_a_redirect(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first host counts as public here, so that there is one to be redirected from."""
    monkeypatch.setattr(connections, "public", lambda address: address == "127.0.0.1")
    assert fetch_bytes(f"{server}/a.png", 10_000, 5.0) == PNG
    for to in ("http://127.0.0.2:9/", "//169.254.169.254/latest", "http://[::1]/"):
        with pytest.raises(AddressError, match="not public"):
            fetch_bytes(f"{server}/to/{to}", 100, 2.0)


def test_what_was_looked_at_is_what_is_connected_to(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that stands for another host when it is looked up again; of its hosts those that are public are asked."""
    port = int(server.rpartition(":")[2])
    asked = []

    def rebinding(host: str, *_: Any, **__: Any) -> list[Any]:
        asked.append(host)
        hosts = ["127.0.0.2", "127.0.0.1"] if len(asked) == 1 else ["127.0.0.2"]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in hosts]

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    monkeypatch.setattr(connections, "public", lambda address: address == "127.0.0.1")
    assert fetch_bytes(f"http://images.example:{port}/a.png", 10_000, 5.0) == PNG
    assert asked == ["images.example"]
    with pytest.raises(AddressError, match="not public"):
        fetch_bytes(f"http://images.example:{port}/a.png", 10_000, 5.0)


@pytest.mark.parametrize(
    ("address", "wanted"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("::ffff:8.8.8.8", True),
        ("64:ff9b::808:808", True),
        ("127.0.0.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("224.0.0.1", False),
        ("240.0.0.1", False),
        ("0.0.0.0", False),
        ("::", False),
        ("::1", False),
        ("::127.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("64:ff9b::a9fe:a9fe", False),
        ("2002:7f00:1::", False),
        ("fe80::1%eth0", False),
        ("fec0::1", False),
        ("ff02::1", False),
    ],
)
def test_addresses_of_the_public_internet(address: str, wanted: bool) -> None:
    assert connections.public(address) == wanted


def test_proxies_of_the_environment(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They look names up themselves; what is known here to be private is refused all the same."""
    lines: list[str] = []
    monkeypatch.setattr(Handler, "log_request", lambda self, *_: lines.append(self.requestline))
    monkeypatch.setenv("http_proxy", server.replace("//", "//me:pw@"))
    monkeypatch.setenv("https_proxy", server.removeprefix("http://"))
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(AddressError, match="HTTP status 404"):
        fetch_bytes("http://images.invalid/404?x", 100, 5.0)
    assert lines == ["GET http://images.invalid/404?x HTTP/1.1"]
    with pytest.raises(AddressError, match="HTTP status 501 from the proxy"):
        fetch_bytes("https://images.invalid/a.png", 100, 5.0)
    assert lines[1:] == ["CONNECT images.invalid:443 HTTP/1.1"]
    for host in ("127.0.0.1", "localhost"):
        with pytest.raises(AddressError, match="not public"):
            fetch_bytes(f"http://{host}/a.png", 100, 5.0)
    assert len(lines) == 2
    monkeypatch.setenv("http_proxy", "socks5://127.0.0.1:1")
    with pytest.raises(AddressError, match="no HTTP proxy, socks5"):
        fetch_bytes("http://images.invalid/", 100, 5.0)


def test_a_server_that_says_nothing_and_one_that_is_not_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(AddressError, match=r"no answer in 0\.3 s"):
            fetch(f"http://127.0.0.1:{port}/", 100, 0.3)
    with pytest.raises(AddressError, match="refused"):
        fetch(f"http://127.0.0.1:{port}/", 100, 1.0)


@pytest.mark.parametrize(
    "address",
    [
        "http://",
        "http://[::1",
        "http://a b/",
        "http://127.0.0.1:99999/",
        "http://a\nb/",
        "http://me:pw@127.0.0.1/",
        "http://" + "ä" * 80 + "/",
        "http://" + "a" * 80 + "/",
        "file:///etc/hostname",
    ],
)
def test_addresses_that_cannot_be(address: str) -> None:
    with pytest.raises(AddressError):
        fetch(address, 100, 0.5)


def test_no_more_than_the_limit_is_read(server: str) -> None:
    assert len(fetch(f"{server}/endless", 1000, 5.0)) == 1001
