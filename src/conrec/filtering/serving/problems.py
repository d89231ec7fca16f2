"""What is answered to a request that cannot be served: one shape for all of them.

Every answer of a status from 400 on is ``{"error": {"found", "where", "expected", "mend"}}``, of the media type
``application/problem+json`` (RFC 9457, of which all other members are optional).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from conrec.errors import ConrecError

__all__ = ["PROBLEM", "Header", "RequestError", "problem_body"]

Header = tuple[bytes, bytes]
PROBLEM = b"application/problem+json"
LONGEST = 400
"""Characters of each part; a key of a megabyte is not sent back."""


class RequestError(ConrecError):
    """A request that cannot be served as it is.

    Args:
        status: HTTP status, from 400 on.
        found: what was met; of a body at most an unknown key, never a user ID or an item ID where one is expected.
        where: which part of the request.
        expected: what should have stood there.
        mend: what to do about it.
        headers: of the answer, beside the usual ones.

    Attributes:
        status: as given.
        headers: as given.
    """

    def __init__(
        self,
        status: int,
        found: str,
        *,
        where: str = "",
        expected: str = "",
        mend: str = "",
        headers: Sequence[Header] = (),
    ) -> None:
        super().__init__(found, where=where, expected=expected, mend=mend)
        self.status, self.headers = status, tuple(headers)


def problem_body(error: ConrecError) -> bytes:
    """The JSON of an error's four parts."""
    parts = {"found": error.found, "where": error.where, "expected": error.expected, "mend": error.mend}
    return msgspec.json.encode({"error": {name: _plain(text) for name, text in parts.items()}})


def _plain(text: str) -> str:
    """A text of bounded length that is valid UTF-8."""
    short = text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
    return short.encode("utf-8", "replace").decode()
