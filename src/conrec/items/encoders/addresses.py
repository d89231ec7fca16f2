"""The bytes behind an http or https address, under a limit of size and of time, whatever the other side does."""

from __future__ import annotations

import http.client
import socket
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any

from conrec import __version__

__all__ = ["AddressError", "fetch_bytes"]

_BLOCK = 1 << 16


class AddressError(Exception):
    """An address that gave nothing usable, and why."""


def fetch_bytes(address: str, max_bytes: int, timeout: float) -> bytes:
    """What an address answers.

    Redirects are followed to http and https alone. Proxies of the environment are used.

    Args:
        address: http or https.
        max_bytes: read at most one byte more than this, so that the caller sees that it is more.
        timeout: seconds that the head of the answer may take, and then its body; a server that sends a byte
            now and then is cut off as well.

    Raises:
        AddressError: no answer in time, an answer other than success, or an address that cannot be one.
    """
    hurry = _Hurry(timeout)
    try:
        with _opener(hurry).open(_quoted(address), timeout=timeout) as answer:
            hurry.over()
            parts, size, end = [], 0, time.monotonic() + timeout
            while size <= max_bytes and (part := answer.read1(min(_BLOCK, max_bytes + 1 - size))):
                parts.append(part)
                size += len(part)
                if time.monotonic() > end:
                    raise AddressError(f"not there after {timeout:g} s")
            if answer.length and size <= max_bytes:
                raise AddressError(f"ended {answer.length:,} bytes early")
            return b"".join(parts)
    except AddressError:
        raise
    except urllib.error.HTTPError as error:
        error.close()
        raise AddressError(f"HTTP status {error.code}") from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        late = hurry.late or isinstance(error, TimeoutError)
        reason = getattr(error, "reason", None) or error
        text = f"no answer in {timeout:g} s" if late else str(reason) or type(error).__name__
        raise AddressError(text.splitlines()[0]) from None
    finally:
        hurry.over()


class _Hurry:
    """Shuts the sockets of a request that takes too long: a timeout on a socket begins anew with every byte."""

    def __init__(self, seconds: float) -> None:
        self.late = False
        self._connections: list[http.client.HTTPConnection] = []
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True
        self._timer.start()

    def watch(self, kind: type[http.client.HTTPConnection]) -> Callable[..., http.client.HTTPConnection]:
        """``kind``, whose instances are ended as well."""

        def make(*args: Any, **options: Any) -> http.client.HTTPConnection:
            connection = kind(*args, **options)
            self._connections.append(connection)
            return connection

        return make

    def over(self) -> None:
        """Nothing is ended any more."""
        self._timer.cancel()

    def _end(self) -> None:
        self.late = True
        for connection in self._connections:
            if connection.sock is not None:
                try:
                    connection.sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue  # closed by now


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """The next request; the standard library would go on to ftp."""
        if urllib.parse.urlsplit(newurl).scheme.lower() not in ("http", "https"):
            raise AddressError(f"redirected to {newurl[:80]}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener(hurry: _Hurry) -> urllib.request.OpenerDirector:
    """An opener that knows http and https and nothing else."""

    class Http(urllib.request.HTTPHandler):
        def http_open(self, req: urllib.request.Request) -> Any:
            return self.do_open(hurry.watch(http.client.HTTPConnection), req)

    class Https(urllib.request.HTTPSHandler):
        def https_open(self, req: urllib.request.Request) -> Any:
            return self.do_open(hurry.watch(http.client.HTTPSConnection), req)

    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        Http(),
        Https(),
        _Redirects(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    opener.addheaders = [("User-Agent", f"conrec/{__version__}"), ("Accept", "image/*,*/*;q=0.1")]
    return opener


def _quoted(address: str) -> str:
    """The address with blanks and letters beyond ASCII in its path and query escaped, as browsers do."""
    parts = urllib.parse.urlsplit(address.strip())
    host = parts.netloc.encode("idna").decode() if not parts.netloc.isascii() else parts.netloc
    keep = "%/:=&?~#+!$,;'@()*[]"
    path, query = urllib.parse.quote(parts.path, keep), urllib.parse.quote(parts.query, keep)
    return urllib.parse.urlunsplit((parts.scheme, host, path, query, ""))
