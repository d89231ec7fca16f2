"""Items as titles: how a history of dislikes and likes is read, and what is asked about other titles behind it.

A prompt says what it asks, then the latest titles of each sign, the older first::

    Will this user dislike the item? Disliked: Heat (1995); Jaws (1975). Liked: Fargo (1996). Item: Alien (1979)<|end|>
"""

from __future__ import annotations

from collections.abc import Sequence

from conrec.arrays import Array
from conrec.errors import NotApplicableError
from conrec.llm.backbone import Backbone
from conrec.logs.log import Log
from conrec.protocol import NEGATIVE, POSITIVE
from conrec.workspace import Workspace

__all__ = ["TitlePrompts", "has_titles", "require_titles"]

DISLIKES = "Will this user dislike the item?"
CHOOSE = "Which of these will this user dislike next?"
NAME = "What will this user dislike next?"
CAPTIONS = {NEGATIVE: " Disliked:", POSITIVE: " Liked:"}
ITEM, CANDIDATES = " Item:", " Candidates:"
YES, NO = "Yes", "No"


def has_titles(space: Workspace) -> bool:
    """Whether any item has a title, which is not its ID."""
    return list(space.titles) != list(space.prepared.log.item_ids)


def require_titles(space: Workspace) -> None:
    """Refuse a log whose items have no titles.

    Raises:
        NotApplicableError: every title is the item's ID.
    """
    if not has_titles(space):
        raise NotApplicableError("it reads items by their titles, and no item of this log has one")


class TitlePrompts:
    """Writes the prompts of the rows that read titles.

    Args:
        backbone: for its tokens.
        titles: of each catalogue item.
        history: titles of each sign that a prompt shows.
        title_tokens: a title is cut here.

    Attributes:
        yes, no: first tokens of the two answers; see `require_answers`.
    """

    def __init__(self, backbone: Backbone, titles: Sequence[str], history: int, title_tokens: int) -> None:
        self.backbone, self.history = backbone, history
        self._title = [backbone.text_ids(" " + title)[:title_tokens] for title in titles]
        self._separator, self._stop = backbone.text_ids(";"), backbone.text_ids(".")
        texts = (DISLIKES, CHOOSE, NAME, ITEM, CANDIDATES, *CAPTIONS.values())
        self._text = {text: backbone.text_ids(text) for text in texts}
        self.yes, self.no = backbone.text_ids(YES)[0], backbone.text_ids(NO)[0]

    def __len__(self) -> int:
        return len(self._title)

    def require_answers(self) -> None:
        """Refuse a tokenizer in which both answers begin with one token, such as one for the beginning of a word.

        Raises:
            NotApplicableError: `yes` and `no` are the same.
        """
        if self.yes == self.no:
            token = self.backbone.tokenizer.convert_ids_to_tokens(self.yes)
            raise NotApplicableError(
                f"it compares the first tokens of {YES} and {NO}, and both are {token!r} in this backbone's tokenizer"
            )

    def title(self, item: int) -> list[int]:
        """The tokens of a title, and the one that ends it."""
        return [*self._title[item], self.backbone.end]

    def pointwise(self, log: Log, user: int, timestamp: int) -> list[int]:
        """Prompt that a `title` follows and then Yes or No: will the user dislike this item?"""
        return [*self._text[DISLIKES], *self._read(log, user, timestamp), *self._text[ITEM]]

    def choice(self, log: Log, user: int, timestamp: int, candidates: Sequence[int] | Array) -> list[int]:
        """Prompt whose answer is the `title` of one of the candidates, listed in the given order."""
        listed = self._listed(CANDIDATES, [int(item) for item in candidates])
        return [*self._text[CHOOSE], *self._read(log, user, timestamp), *listed, self.backbone.end]

    def matching(self, log: Log, user: int, timestamp: int) -> list[int]:
        """Prompt whose answer is the `title` of any item."""
        return [*self._text[NAME], *self._read(log, user, timestamp), self.backbone.end]

    def _read(self, log: Log, user: int, timestamp: int) -> list[int]:
        """The history strictly before the time, sign by sign; a sign without events is not mentioned."""
        events = log.history(user, timestamp)
        ids: list[int] = []
        for sign, caption in CAPTIONS.items():
            ids += self._listed(caption, log.item[events[log.feedback[events] == sign]][-self.history :].tolist())
        return ids

    def _listed(self, caption: str, items: list[int]) -> list[int]:
        """A caption and titles, nothing without items."""
        if not items:
            return []
        ids = list(self._text[caption])
        for place, item in enumerate(items):
            ids += [*(self._separator if place else ()), *self._title[item]]
        return [*ids, *self._stop]
