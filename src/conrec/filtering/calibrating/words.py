"""What a calibration found and what exactly it promises, in words."""

from __future__ import annotations

from math import ceil, log

from conrec.filtering.calibrating.control import Liked, Rule

__all__ = ["needed", "promise", "statement"]


def statement(rule: Rule, liked: Liked, threshold: float | None, false_filters: int, able: int | None) -> str:
    """In words, what was found on validation data, and what that promises.

    Args:
        rule: what was to hold.
        liked: the liked candidates.
        threshold: what was chosen; None where the bound cannot be shown to hold. Not read where there are segments.
        false_filters: liked candidates that are dropped.
        able: number of categories that can drop something; None where one threshold is for all.
    """
    n = len(liked.similarity)
    if not n:
        return (
            "The validation anchors have no future positives, so the cost of a threshold cannot be known: "
            "the filter keeps everything."
        )
    seen = f"{n} future positives of {liked.users} users in validation"
    if able == 0:
        return (
            f"With {seen} no category has a threshold that can drop something and be shown to stay within a "
            f"false-filter rate of {rule.bound:g} in it: the filter keeps everything."
        )
    if able is not None:
        return (
            f"{false_filters} of {seen} are above the thresholds of their categories, of which {able} can drop "
            f"something. Guarantee, of each category by itself: {promise(rule)}"
        )
    if threshold is None:
        return (
            f"With {seen} even a filter that drops none of them cannot be shown to stay within a false-filter rate of "
            f"{rule.bound:g}{_short(rule)}: the filter keeps everything."
        )
    if threshold >= 1:
        same = liked.similarity >= 1
        share = "of a user's on average" if rule.rate == "user" else "of them all, each user's weighted"
        return (
            f"{int(same.sum())} of {seen} have the very codes of a predicted item, {liked.rate(same, rule.cap):.4f} "
            f"{share}: more than can be lost within a bound of {rule.bound:g}. Nothing is above 1, so the filter keeps "
            "everything. Fewer predictions (prediction.predict_set) or predictions weighted by rank "
            "(filter.rank_weight) leave it something to choose from."
        )
    dropped = liked.similarity > threshold
    return (
        f"{false_filters} of {seen} are above {threshold:.4f}, {liked.rate(dropped):.4f} of a user's on average, "
        f"{liked.rate(dropped, None):.4f} of them all. Guarantee: {promise(rule)}"
    )


def promise(rule: Rule) -> str:
    """What the rule guarantees, and of whom."""
    if rule.rate == "user":
        what = "the share of a user's liked candidates that is dropped, averaged over users,"
    else:
        what = (
            "the share of all users' liked candidates that is dropped (a user with more than "
            f"{rule.pairs_per_user} counts as one with so many)"
        )
    if rule.guarantee == "expectation":
        how = f"is at most {rule.bound:g} in expectation over the draw of the validation users"
    else:
        how = f"is at most {rule.bound:g} for {rule.confidence:.0%} of the draws of the validation users"
    return (
        f"for users drawn as these were, in the validation period, {what} {how}. It takes predictions for fresh, and "
        "model and settings for fixed before these users were looked at, by whom they were chosen, too. It says "
        "nothing of later periods, whose users and items may differ: the figures on test anchors show what came of it "
        "there."
    )


def needed(rule: Rule) -> int:
    """The least total weight of users (with rate "user": the number of users) that can show a bound to hold."""
    if rule.guarantee == "expectation":
        least = max(1, round(rule.cap * (1 - rule.bound) / rule.bound) - 1)
        while rule.cap / (least + rule.cap) > rule.bound + 1e-12:
            least += 1
        return least
    return ceil(log(1 - rule.confidence) / log(1 - rule.bound) - 1e-9)


def _short(rule: Rule) -> str:
    """How many are needed, where that is a plain number."""
    if rule.rate == "user":
        return f" (at least {needed(rule)} such users are needed)"
    if rule.guarantee == "expectation":
        return f" (at least {needed(rule)} are needed, of which no user counts for more than {rule.pairs_per_user})"
    return ""
