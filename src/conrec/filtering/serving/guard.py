"""The bearer token: who may ask."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Mapping
from pathlib import Path

from conrec.errors import ConfigError
from conrec.filtering.serving.problems import RequestError
from conrec.filtering.serving.settings import TOKEN_VARIABLE

__all__ = ["Guard", "read_token"]

SHORTEST = 16
"""Characters; what is shorter can be guessed."""


def read_token(file: Path | None, environment: Mapping[str, str] = os.environ) -> str | None:
    """The token of a file or, without one, of the environment; None where there is none.

    White space around it does not count, so that a file may end with a line break.

    Raises:
        ConfigError: the file cannot be read, or the token is too short or not printable ASCII.
    """
    if file is not None:
        where = str(file)
        try:
            token = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot be read ({type(error).__name__})", where=where, expected="a token") from None
    elif TOKEN_VARIABLE in environment:
        where, token = f"environment variable {TOKEN_VARIABLE}", environment[TOKEN_VARIABLE].strip()
    else:
        return None
    if len(token) < SHORTEST or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(
            f"a token of {len(token)} characters" if len(token) < SHORTEST else "a token with other characters",
            where=where,
            expected=f"at least {SHORTEST} printable ASCII characters without a space",
            mend="For instance: openssl rand -hex 32",
        )
    return token


class Guard:
    """Compares what a request carries with the token, in a time that does not depend on how much of it is right."""

    def __init__(self, token: str | None) -> None:
        self._digest = None if token is None else _digest(token.encode())

    @property
    def is_set(self) -> bool:
        """Whether a token is asked for at all."""
        return self._digest is not None

    def check(self, authorization: bytes | None) -> None:
        """Let a request pass or refuse it.

        Args:
            authorization: value of its header, None without one.

        Raises:
            RequestError: 401, it has no token or a wrong one.
        """
        if self._digest is None:
            return
        scheme, _, given = (authorization or b"").partition(b" ")
        right = hmac.compare_digest(_digest(given.strip()), self._digest)
        if scheme.lower() != b"bearer" or not right:
            raise RequestError(
                401,
                "no token" if authorization is None else "a token that is not the right one",
                where="header Authorization",
                expected="Bearer TOKEN",
                headers=[(b"www-authenticate", b"Bearer")],
            )


def _digest(token: bytes) -> bytes:
    """Of one length, whatever the token's; comparing digests does not tell it."""
    return hashlib.sha256(token).digest()
