"""The bytes behind an http or https address, under limits of size, time and place, whatever the other side does.

Whoever writes a catalogue chooses what this machine asks for: hosts that are not of the public internet (this machine,
its network, the addresses at which clouds hand out keys) are refused, also behind a redirect.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import re
import string
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass

from conrec import __version__
from conrec.items.encoders.connections import AddressError, Connection, Deadline, public, resolve

__all__ = ["AddressError", "fetch_bytes"]

_BLOCK = 1 << 16
_REDIRECTS = 10
"""So many are followed."""
_MOVED = (301, 302, 303, 307, 308)
_PORTS = {"http": 80, "https": 443}


def fetch_bytes(address: str, max_bytes: int, timeout: float, *, private: bool = False) -> bytes:
    """What an address answers.

    Redirects are followed to http and https alone, and what comes with them is not read. Proxies of the environment
    are used; they look names up themselves, so that behind one only a host that is known here to be private is
    refused.

    Args:
        address: http or https.
        max_bytes: read at most one byte more than this, so that the caller sees that it is more.
        timeout: seconds for all of it: looking names up, connecting, redirects, head and body. A server that sends a
            byte now and then is cut off as well.
        private: whether hosts that are not public are asked.

    Raises:
        AddressError: no answer in time, an answer other than success, a host that is not public, or an address that
            cannot be one. What it says has nothing in it of what a server sent but the status.
    """
    deadline = Deadline(timeout)
    try:
        for _ in range(_REDIRECTS + 1):
            with _asked(_target(address), deadline, private=private) as answer:
                location = answer.headers.get("Location")
                if answer.status not in _MOVED or location is None:
                    return _body(answer, max_bytes)
                address = urllib.parse.urljoin(
                    address, urllib.parse.quote(location, string.punctuation, encoding="iso-8859-1")
                )
        raise AddressError(f"more than {_REDIRECTS} redirects")
    except TimeoutError:
        raise AddressError(f"no answer in {timeout:g} s") from None
    except http.client.HTTPException as error:
        # The error's own text has the server's bytes in it.
        raise AddressError(f"an answer that is not HTTP ({type(error).__name__})") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise AddressError(str(reason).splitlines()[0][:200]) from None
    except MemoryError:
        raise AddressError("more than there is memory for") from None


@dataclass(frozen=True, slots=True)
class _Target:
    """An address in its parts, each as it is sent."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def name(self) -> str:
        """Host and, where it is not the usual one, port, as a request names them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


def _target(address: str) -> _Target:
    """Blanks and letters beyond ASCII in path and query are escaped, as browsers do."""
    parts = urllib.parse.urlsplit(address.strip())
    scheme = parts.scheme.lower()
    if scheme not in _PORTS:
        raise AddressError("leads to an address that is not http or https")
    if parts.username is not None:
        raise AddressError("an address with a user's name in it")
    host = parts.hostname or ""
    if not host.isascii():
        host = host.encode("idna").decode()
    # What else stands in a host would stand in the request as well.
    if not re.fullmatch(r"[0-9A-Za-z._~%:-]+", host):
        raise AddressError("an address without a host" if not host else "an address with a host that cannot be one")
    keep = "%/:=&?~#+!$,;'@()*[]"
    path, query = urllib.parse.quote(parts.path, keep), urllib.parse.quote(parts.query, keep)
    port = _PORTS[scheme] if parts.port is None else parts.port
    return _Target(scheme, host, port, urllib.parse.urlunsplit(("", "", path or "/", query, "")))


@contextlib.contextmanager
def _asked(target: _Target, deadline: Deadline, *, private: bool) -> Iterator[http.client.HTTPResponse]:
    """The head of the answer, with the body still to be read."""
    proxy = _proxy(target)
    headers = {"Host": target.name}
    path = target.path
    if proxy is None:
        connection = Connection(target.host, target.port, deadline, private=private)
    else:
        _check_behind_proxy(target, deadline, private=private)
        # Whoever set the proxy trusts it, wherever it is.
        connection = Connection(proxy.hostname or "", proxy.port or 80, deadline, private=True)
    with connection:
        if proxy is not None and target.scheme == "https":
            where = f"[{target.host}]" if ":" in target.host else target.host
            tunnel = f"{where}:{target.port}"
            with _answer(connection, "CONNECT", tunnel, {"Host": tunnel, **_credentials(proxy)}) as agreed:
                if agreed.status != http.client.OK:
                    raise AddressError(f"HTTP status {agreed.status} from the proxy")
        elif proxy is not None:
            headers |= _credentials(proxy)
            path = f"http://{target.name}{target.path}"
        if target.scheme == "https":
            connection.encrypt(target.host)
        headers |= {
            "User-Agent": f"conrec/{__version__}",
            "Accept": "image/*,*/*;q=0.1",
            "Accept-Encoding": "identity",
            "Connection": "close",
        }
        with _answer(connection, "GET", path, headers) as answer:
            yield answer


@contextlib.contextmanager
def _answer(
    connection: Connection, method: str, what: str, headers: dict[str, str]
) -> Iterator[http.client.HTTPResponse]:
    lines = [f"{method} {what} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    connection.sendall("\r\n".join(lines).encode("ascii"))
    # It asks of a socket no more than a file to read from.
    answer = http.client.HTTPResponse(connection, method=method)  # type: ignore[arg-type]
    try:
        answer.begin()
        # `http.client` takes the end of the connection for the end of the head.
        if connection.ended:
            raise AddressError("ended within its head")
        yield answer
    finally:
        answer.close()


def _body(answer: http.client.HTTPResponse, max_bytes: int) -> bytes:
    if not 200 <= answer.status < 300:
        raise AddressError(f"HTTP status {answer.status}")
    parts, size = [], 0
    while size <= max_bytes and (part := answer.read1(min(_BLOCK, max_bytes + 1 - size))):
        parts.append(part)
        size += len(part)
    if answer.length and size <= max_bytes:
        raise AddressError(f"ended {answer.length:,} bytes early")
    return b"".join(parts)


def _proxy(target: _Target) -> urllib.parse.SplitResult | None:
    """The proxy that the environment names for an address; None: it is asked itself."""
    named = urllib.request.getproxies().get(target.scheme)
    if not named or urllib.request.proxy_bypass(f"{target.host}:{target.port}"):
        return None
    proxy = urllib.parse.urlsplit(named if "://" in named else f"http://{named}")
    if proxy.scheme.lower() not in _PORTS or not proxy.hostname:
        raise AddressError(f"the environment names a proxy that is no HTTP proxy, {proxy.scheme}")
    return proxy


def _check_behind_proxy(target: _Target, deadline: Deadline, *, private: bool) -> None:
    """Refuse what is known here to be private; often no name is known behind a proxy, and it is not waited for long."""
    if private:
        return
    try:
        found = resolve(target.host, target.port, deadline.left() / 4)
    except OSError:
        return
    if not any(public(address[0]) for _, address in found):
        raise AddressError("its host is not public (encoder.image.private_addresses)")


def _credentials(proxy: urllib.parse.SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    pair = f"{urllib.parse.unquote(proxy.username)}:{urllib.parse.unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
