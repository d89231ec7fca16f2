"""Connections to hosts of the public internet, on which every wait ends at one deadline.

A timeout of a socket begins anew with every byte, and looking a name up knows none; here each wait is given what is
left until the deadline. A name is looked up once, and what is connected to is the address that was looked at: a name
that means something else a moment later (DNS rebinding) leads nowhere.
"""

from __future__ import annotations

import functools
import io
import ipaddress
import queue
import socket
import ssl
import threading
import time
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["AddressError", "Connection", "Deadline", "public", "resolve"]

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""Addresses that a gateway turns into the IPv4 address of their last four bytes (RFC 6052)."""


class AddressError(Exception):
    """An address that gave nothing usable, and why."""


class Deadline:
    """A moment by which something must be over.

    Args:
        seconds: from now.
    """

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds until then, above 0.

        Raises:
            TimeoutError: there are none.
        """
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


def public(address: str) -> bool:
    """Whether an IP address is one of the public internet, also where it stands for an IPv4 address."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        within = found.ipv4_mapped or found.sixtofour
        if found in _NAT64:
            within = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if within is not None:
            return public(str(within))
        if found.is_site_local:
            return False
    return found.is_global and not (found.is_multicast or found.is_reserved or found.is_unspecified)


def resolve(host: str, port: int, seconds: float) -> list[tuple[int, Any]]:
    """What a name stands for, as families and socket addresses, in the order in which they should be tried.

    Raises:
        TimeoutError: not known in time. The look-up goes on in a thread of its own: it cannot be ended.
        OSError: there is no such name.
    """
    answer: queue.SimpleQueue[list[tuple[int, Any]] | Exception] = queue.SimpleQueue()

    def look() -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            answer.put([(family, address) for family, _, _, _, address in found])
        except Exception as error:  # handed over, whatever it is
            answer.put(error)

    threading.Thread(target=look, daemon=True).start()
    try:
        found = answer.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError from None
    if isinstance(found, Exception):
        raise found
    return found


class Connection(AbstractContextManager["Connection"]):
    """A socket that is given no longer than a deadline for anything; what `http.client` needs of one.

    Args:
        host: name or IP address.
        port: where it listens.
        deadline: of every wait.
        private: whether hosts that are not public are connected to.

    Raises:
        AddressError: the host is not public.
        OSError: it cannot be connected to, or not in time (`TimeoutError`).
    """

    def __init__(self, host: str, port: int, deadline: Deadline, *, private: bool) -> None:
        self._deadline = deadline
        self._socket = _connect(host, port, deadline, private=private)
        self.ended = False
        """Whether the other side has said its last and more was asked for."""

    def encrypt(self, host: str) -> None:
        """From here on TLS, with a certificate for that host."""
        self._socket.settimeout(self._deadline.left())
        # The timeout is that of the whole handshake.
        self._socket = _context().wrap_socket(self._socket, server_hostname=host)

    def sendall(self, data: bytes) -> None:
        """Send all of it; the timeout of a socket is that of all of it here."""
        self._socket.settimeout(self._deadline.left())
        self._socket.sendall(data)

    def receive_into(self, buffer: WriteableBuffer) -> int:
        """Wait for some bytes; how many came, 0 at the end."""
        self._socket.settimeout(self._deadline.left())
        count = self._socket.recv_into(buffer)
        self.ended = self.ended or count == 0
        return count

    def makefile(self, _mode: str) -> io.BufferedReader:
        """What is received, to be read; closing it leaves the connection open."""
        return io.BufferedReader(_Received(self))

    def __exit__(self, *_: object) -> None:
        self._socket.close()


class _Received(io.RawIOBase):
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        return self._connection.receive_into(buffer)


def _connect(host: str, port: int, deadline: Deadline, *, private: bool) -> socket.socket:
    found = resolve(host, port, deadline.left())
    allowed = [one for one in found if private or public(one[1][0])]
    if not allowed:
        raise AddressError("its host is not public (encoder.image.private_addresses)")
    for place, (family, address) in enumerate(allowed):
        made = socket.socket(family, socket.SOCK_STREAM)
        try:
            # An address that swallows everything leaves time for the others.
            made.settimeout(deadline.left() / (len(allowed) - place))
            made.connect(address)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except BaseException as error:
            made.close()
            if not isinstance(error, OSError) or place == len(allowed) - 1:
                raise
        else:
            return made
    raise AssertionError("the last address is connected to or raises")


@functools.cache
def _context() -> ssl.SSLContext:
    """TLS with the certificates of this machine, read once: that takes milliseconds."""
    return ssl.create_default_context()
