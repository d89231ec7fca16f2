"""By which names the service may be asked where nothing else says who may ask.

Whoever has a token may call the service what he likes. Without one, a service that listens on one machine alone trusts
those who are on it, and a browser there asks for any web page that it shows: a page whose own name was made to lead to
127.0.0.1 (DNS rebinding) could then read every answer. Its requests carry that name.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection

from conrec.filtering.serving.problems import RequestError
from conrec.filtering.serving.settings import ServeSettings

__all__ = ["Hosts", "allowed_hosts"]


class Hosts:
    """The names of this machine to itself (localhost, 127.0.0.0/8, ::1), and some more.

    Args:
        more: names or addresses without a port.
    """

    def __init__(self, more: Collection[str] = ()) -> None:
        self._more = frozenset(_plain(one) for one in more)

    def check(self, host: bytes | None) -> None:
        """Let a request pass or refuse it.

        Args:
            host: value of its header; None: it has none, as no browser's.

        Raises:
            RequestError: 421, it calls the service by another name.
        """
        if host is None:
            return
        name = _without_port(host.decode("latin-1"))
        if not is_loopback(name) and name not in self._more:
            raise RequestError(
                421,
                "another name",
                where="header Host",
                expected="localhost or 127.0.0.1, for this service has no token",
                mend="Start it with a token, or with --allow-host NAME.",
            )


def allowed_hosts(settings: ServeSettings) -> Hosts | None:
    """The names that count for a service without a token; None: all."""
    return Hosts(settings.allow_hosts) if settings.allow_hosts or is_loopback(_plain(settings.host)) else None


def is_loopback(name: str) -> bool:
    """Whether a name is one of a machine to itself."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _without_port(host: str) -> str:
    if host.startswith("["):
        return _plain(host.partition("]")[0])
    return _plain(host.rpartition(":")[0] if host.count(":") == 1 else host)


def _plain(name: str) -> str:
    return name.strip().strip("[]").rstrip(".").lower()
