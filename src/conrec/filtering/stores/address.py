"""Where a predict-set store on a server is: ``valkey://host:port/NAME``, and a connection to it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from conrec.errors import ConfigError, MissingExtraError

__all__ = ["SCHEMES", "TIMEOUT", "Address", "is_address"]

SCHEMES = ("valkey", "redis", "valkeys", "rediss")
"""Schemes with an s at the end are encrypted (TLS)."""
TIMEOUT = 0.05
"""Seconds that a request waits for a connection, and for an answer, where the address names no others."""
PASSWORD = "CONREC_VALKEY_PASSWORD"
"""Environment variable with the password, for an address that has none."""
_PORT = 6379
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_EXPECTED = "valkey://[user:password@]host[:port]/NAME[?db=0&timeout=0.05], NAME of letters, digits, '_', '.', '-'"


def is_address(place: object) -> bool:
    """Whether a place is one on a server, not a folder."""
    return isinstance(place, str) and "://" in place


@dataclass(frozen=True, slots=True)
class Address:
    """A store on a server.

    Attributes:
        host: name or number of the machine.
        port: of the server.
        name: of the store; one server may hold many.
        db: number of the database.
        tls: whether the connection is encrypted.
        user: for the server; None: its default user.
        password: None: none.
        timeout: seconds that a request waits for a connection, and for an answer.
    """

    host: str
    port: int
    name: str
    db: int = 0
    tls: bool = False
    user: str | None = None
    password: str | None = None
    timeout: float = TIMEOUT

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read ``valkey://[user:password@]host[:port]/NAME[?db=0&timeout=0.05]``.

        Raises:
            ConfigError: it is not of this form.
        """
        try:
            parts = urlsplit(text)
            options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
            db, timeout = int(options.pop("db", "0")), float(options.pop("timeout", str(TIMEOUT)))
            name, port = parts.path.strip("/"), parts.port or _PORT
            right = parts.scheme in SCHEMES and _NAME.fullmatch(name) and not options and db >= 0
            if not right or not 0 < timeout < 3600 or not parts.hostname:
                raise ValueError
        except ValueError:
            said = re.sub(r"//[^/]*@", "//…@", text)
            raise ConfigError(f"{said!r} is no address of a store", expected=_EXPECTED) from None
        user, password = (None if one is None else unquote(one) for one in (parts.username, parts.password))
        password = os.environ.get(PASSWORD) if password is None else password
        return cls(parts.hostname, port, name, db, parts.scheme.endswith("s"), user or None, password, timeout)

    def __str__(self) -> str:
        """The address without user and password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'valkeys' if self.tls else 'valkey'}://{host}:{self.port}/{self.name}"

    def connect(self, timeout: float | None = None) -> Any:
        """A client (`valkey.Valkey`, whose own types hold that all of its answers may be awaited).

        It connects when it is first asked.

        Args:
            timeout: seconds; None: that of the address.

        Raises:
            MissingExtraError: the package ``valkey`` is not installed.
        """
        try:
            from valkey import Valkey  # noqa: PLC0415
        except ImportError:
            raise MissingExtraError("valkey", "valkey") from None
        seconds = self.timeout if timeout is None else timeout
        options: dict[str, Any] = {"socket_timeout": seconds, "socket_connect_timeout": seconds, "ssl": self.tls}
        return Valkey(self.host, self.port, self.db, self.password, username=self.user, **options)
