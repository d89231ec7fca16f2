"""One family of errors. Each says what was found, where, what was expected and how to mend it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "ArtefactError",
    "ConfigError",
    "ConrecError",
    "DataError",
    "MissingExtraError",
    "NotApplicableError",
    "RunLockedError",
    "did_you_mean",
]


class ConrecError(Exception):
    """A mistake that the user can mend; the command line prints it without a traceback.

    Args:
        found: what was met, in one clause.
        where: file, row and column, configuration key or option; empty where there is none.
        expected: what should have stood there.
        mend: what to do about it, a full sentence.
    """

    def __init__(self, found: str, *, where: str = "", expected: str = "", mend: str = "") -> None:
        self.found, self.where, self.expected, self.mend = found, where, expected, mend
        text = f"{where}: {found}" if where else found
        if expected:
            text += f"; expected {expected}"
        text = text if text.endswith((".", "?", "!")) else text + "."
        super().__init__(f"{text} {mend}".rstrip())


class DataError(ConrecError):
    """A log, an item file or a candidate file that cannot be used as it is."""


class ConfigError(ConrecError):
    """A configuration key, value or option that does not exist or does not fit."""


class ArtefactError(ConrecError):
    """A file of a run that is missing, damaged or belongs to another run."""


class NotApplicableError(ConrecError):
    """A row of the table that this log does not allow, such as one that reads titles where no item has any.

    It is no mistake: the run goes on without the row, and the table says why.
    """


class RunLockedError(ConrecError):
    """Another process works in the same run folder."""


class MissingExtraError(ConrecError):
    """A package of an extra is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"the package {package!r} is not installed",
            mend=f"It comes with an extra: pip install 'conrec[{extra}]'.",
        )


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A sentence naming the known words nearest to ``word``, or the whole list where none is near."""
    words = sorted(known)
    near = difflib.get_close_matches(word, words, n=3, cutoff=0.6)
    if near:
        return "Did you mean " + " or ".join(repr(one) for one in near) + "?"
    return "Known: " + ", ".join(words) + "." if words else ""
