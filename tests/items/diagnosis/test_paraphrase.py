"""Other words by rules: what each rule does, and what it leaves alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conrec.items.diagnosis.paraphrase import RULES, moved_article, paraphrase, without_year
from conrec.logs.catalogue import item_text


@pytest.mark.parametrize(
    ("title", "moved"),
    [
        ("Godfather, The (1972)", "The Godfather (1972)"),
        ("The Matrix (1999)", "Matrix, The (1999)"),
        ("A Chef in Love (1996)", "Chef in Love, A (1996)"),
        ("Postino, Il (Postman, The) (1994)", "Il Postino (Postman, The) (1994)"),
        ("Haine, La", "La Haine"),
        ("Eye of Vichy, L'", "L'Eye of Vichy"),
        ("Die Hard (1988)", "Die Hard (1988)"),
        ("Thelma & Louise (1991)", "Thelma & Louise (1991)"),
        ("Paris, Texas (1984)", "Paris, Texas (1984)"),
        ("The", "The"),
        ("", ""),
    ],
)
def test_articles_change_places(title: str, moved: str) -> None:
    assert moved_article(title) == moved


@pytest.mark.parametrize(
    ("title", "bare"),
    [
        ("Heat (1995)", "Heat"),
        ("Twin Peaks (1990-1991)", "Twin Peaks"),
        ("2001: A Space Odyssey (1968) ", "2001: A Space Odyssey"),
        ("1984 (1984)", "1984"),
        ("(1984)", "(1984)"),
        ("Hate (Haine, La)", "Hate (Haine, La)"),
    ],
)
def test_years_go(title: str, bare: str) -> None:
    assert without_year(title) == bare


TITLE, CATEGORIES = "Godfather, The (1972)", ["Action", "Crime", "Drama"]
TEXT = item_text("1", TITLE, CATEGORIES, "A family. Action, Crime, Drama and war.")


def test_each_rule_and_all_of_them() -> None:
    said = {rule: paraphrase(TEXT, TITLE, CATEGORIES, rule) for rule in RULES}
    assert said == {
        "article": "The Godfather (1972). Action, Crime, Drama. A family. Action, Crime, Drama and war.",
        "year": "Godfather, The. Action, Crime, Drama. A family. Action, Crime, Drama and war.",
        "categories": "Godfather, The (1972). Filed under Drama, Crime and Action. "
        "A family. Action, Crime, Drama and war.",
        "lower case": "godfather, the (1972). action, crime, drama. a family. action, crime, drama and war.",
        "all of these": "the godfather. filed under drama, crime and action. a family. action, crime, drama and war.",
    }
    assert (
        paraphrase("Heat (1995). Crime.", "Heat (1995)", ["Crime"], "categories") == "Heat (1995). Filed under Crime."
    )


@given(st.text(), st.text(), st.lists(st.text(min_size=1)))
def test_texts_that_do_not_look_like_ours_stay(text: str, title: str, categories: list[str]) -> None:
    """A text of the user's own is changed where it has our sentences, and nowhere else; no rule fails."""
    for rule in RULES:
        assert isinstance(paraphrase(text, title, categories, rule), str)
    own = "Made for this item by hand"
    assert paraphrase(own, "Heat (1995)", ["Crime"], "all of these") == own.lower()
