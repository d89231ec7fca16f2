"""The same item in other words, by rules: what a careful editor might have typed into the catalogue instead.

Rules, each on its own and all together (`RULES`):

* ``article``: the article of the title at the beginning of the text changes places: "Godfather, The" and "The
  Godfather" are each written like the other.
* ``year``: the title loses the year in brackets at its end.
* ``categories``: the sentence of categories is turned round, with other connecting words: "Crime, Drama." becomes
  "Filed under Drama and Crime."
* ``lower case``: all letters are small.

Nothing is drawn at random, and nothing is asked of a model: the same item always gives the same text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

__all__ = ["RULES", "moved_article", "paraphrase", "without_year"]

Step = Callable[[str, str, Sequence[str]], str]
"""From an item's text, title and categories to its text in other words."""
APOSTROPHE = "'"
YEAR = re.compile(r"\s*\(\d{4}(?:\s*[-–/]\s*\w*)?\)\s*$")
"""A year in brackets at the end of a title."""
LEADING = re.compile(r"^(The|An|A)\s+(?=\S)")
"""Articles that are moved behind; of English alone, for "Die Hard" begins with none."""
TRAILING = re.compile(r",\s+(The|An|A|Les|Le|La|L'|Los|Las|El|Il|Lo|Gli|Das|Der|Die|Une|Un|Den|Det|O|Os|As)$")
"""Articles that are moved to the front."""


def moved_article(title: str) -> str:
    """The title with its article behind where it stood in front, and in front where it stood behind.

    >>> titles = ("Godfather, The (1972)", "The Matrix", "Postino, Il (Postman, The) (1994)", "Heat (1995)")
    >>> [moved_article(one) for one in titles]
    ['The Godfather (1972)', 'Matrix, The', 'Il Postino (Postman, The) (1994)', 'Heat (1995)']
    """
    head, bracket, rest = title.partition(" (")
    if behind := TRAILING.search(head):
        article = behind.group(1)
        head = f"{article}{'' if article.endswith(APOSTROPHE) else ' '}{head[: behind.start()]}"
    elif before := LEADING.match(head):
        head = f"{head[before.end() :]}, {before.group(1)}"
    return f"{head}{bracket}{rest}"


def without_year(title: str) -> str:
    """The title without the year at its end; as it is where nothing would be left.

    >>> [without_year(one) for one in ("Heat (1995)", "1984 (1984)", "(2001)")]
    ['Heat', '1984', '(2001)']
    """
    return YEAR.sub("", title) or title


def _retitled(*changes: Callable[[str], str]) -> Step:
    """The step that changes the title where the text begins with it."""

    def step(text: str, title: str, _: Sequence[str]) -> str:
        if not title or not text.startswith(title):
            return text
        other = title
        for change in changes:
            other = change(other)
        return other + text[len(title) :]

    return step


def _categories(text: str, title: str, categories: Sequence[str]) -> str:
    """The sentence of categories, the first after the title that is one, turned round."""
    if not categories:
        return text
    sentence = re.compile(rf"(?:^|(?<=[.!?…] )){re.escape(', '.join(categories))}(?=[.\s]|$)")
    found = sentence.search(text, len(title) if text.startswith(title) else 0)
    if found is None:
        return text
    *others, last = categories[::-1]
    turned = f"{', '.join(others)} and {last}" if others else last
    return f"{text[: found.start()]}Filed under {turned}{text[found.end() :]}"


def _lower(text: str, _: str, __: Sequence[str]) -> str:
    return text.lower()


def paraphrase(text: str, title: str, categories: Sequence[str], rule: str) -> str:
    """One item's text in other words.

    Args:
        text: what is embedded of the item; "title. categories. description" where the catalogue was cleaned here
            (`conrec.logs.catalogue.item_text`).
        title: its title; a text that does not begin with it keeps its beginning.
        categories: its categories; a text that does not name them in their order keeps its words.
        rule: a key of `RULES`.

    >>> paraphrase("Godfather, The (1972). Crime, Drama.", "Godfather, The (1972)", ["Crime", "Drama"], "all of these")
    'the godfather. filed under drama and crime.'
    """
    for step in RULES[rule]:
        text = step(text, title, categories)
    return text


RULES: Mapping[str, tuple[Step, ...]] = MappingProxyType(
    {
        "article": (_retitled(moved_article),),
        "year": (_retitled(without_year),),
        "categories": (_categories,),
        "lower case": (_lower,),
        "all of these": (_categories, _retitled(moved_article, without_year), _lower),
    }
)
"""Steps of each rule. Categories come before the title: that rule looks for the title as it was at the beginning."""
