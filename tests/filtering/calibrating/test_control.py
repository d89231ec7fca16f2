"""The guarantee: the papers' formulas copied out, the smallest threshold of all, and draws with a known truth."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import binom

from conrec.arrays import Array
from conrec.filtering.calibrating.control import Liked, Rule, capital, controlled, smallest_threshold, stakes
from conrec.settings.filtering import FilterConfig

VALUES = st.sampled_from([-1, -0.5, 0, 0.25, 0.5, 0.75, 0.9, 1])
PAIRS = st.integers(0, 60).flatmap(
    lambda n: st.tuples(
        hnp.arrays(np.float32, n, elements=VALUES), hnp.arrays(np.int64, n, elements=st.integers(3, 25))
    )
)
RULES = st.builds(
    Rule,
    bound=st.sampled_from([0.01, 0.05, 0.1, 0.25, 0.29, 0.5, 0.95]),
    rate=st.sampled_from(["user", "pair"]),
    guarantee=st.sampled_from(["expectation", "probability"]),
    confidence=st.sampled_from([0.5, 0.9, 0.95]),
    pairs_per_user=st.integers(1, 6),
)


def literal(similarity: Array, users: Array, threshold: float, rule: Rule) -> bool:
    """Both rules as they are written in the papers, user by user, in exact fractions where they are sums."""
    bound = Fraction(rule.bound).limit_denominator(1000)
    cap = 1 if rule.rate == "user" else rule.pairs_per_user
    losses: list[tuple[int, Fraction]] = []
    for user in np.unique(users):
        own = similarity[users == user]
        losses.append((min(len(own), cap), Fraction(int((own > np.float32(threshold)).sum()), len(own))))
    n = len(losses)
    if rule.guarantee == "expectation" and rule.rate == "user":  # equation 4 with B = 1
        return Fraction(n, n + 1) * (sum(s for _, s in losses) / Fraction(max(n, 1))) + Fraction(1, n + 1) <= bound
    if rule.guarantee == "expectation":  # the same for the loss m (s - a), B = (1 - a) c, and a bound of 0
        mean = sum(m * (s - bound) for m, s in losses) / Fraction(max(n, 1))
        return Fraction(n, n + 1) * mean + (1 - bound) * cap / (n + 1) <= 0
    delta = 1 - rule.confidence
    v = min(math.sqrt(2 * math.log(1 / delta) / (max(n, 1) * rule.bound * (1 - rule.bound))), 1 / (1 - rule.bound))
    bets = [v]
    while bets[-1] < 1 / (1 - rule.bound) * (1 - 1e-12):
        bets.append(min(2 * bets[-1], 1 / (1 - rule.bound)))
    money = [4.0**-place for place in range(len(bets))]
    wealth = 0.0
    for bet, part in zip(bets, money, strict=True):
        wealth += part / sum(money) * math.prod(1 - bet * m * (float(s) - rule.bound) / cap for m, s in losses)
    return wealth >= 1 / delta * (1 - 1e-9)


@settings(deadline=None, max_examples=200)
@given(PAIRS, RULES)
def test_the_threshold_is_the_smallest_of_all_that_qualify(pairs: tuple[Array, Array], rule: Rule) -> None:
    similarity, users = pairs
    found = smallest_threshold(Liked.of(similarity, users), rule)
    tried = [t for t in (-1.5, *np.unique(similarity).tolist()) if literal(similarity, users, t, rule)]
    if len(similarity) == 0:
        assert found is None
    else:
        assert found == min(tried, default=None)


@settings(deadline=None, max_examples=200)
@given(PAIRS, RULES, VALUES)
def test_what_qualifies_does_so_at_every_higher_threshold(pairs: tuple[Array, Array], rule: Rule, at: float) -> None:
    similarity, users = pairs
    liked = Liked.of(similarity, users)
    shares = [liked.shares(similarity > np.float32(t)) for t in (at, at + 0.3, 1.0)]
    assert (shares[0] >= shares[1]).all()
    passed = [controlled(one, liked.weights(rule.cap), rule) for one in shares]
    assert passed == sorted(passed)


@settings(deadline=None, max_examples=100)
@given(PAIRS, RULES, st.randoms(use_true_random=False))
def test_the_order_of_pairs_and_the_names_of_users_do_not_matter(
    pairs: tuple[Array, Array], rule: Rule, random: object
) -> None:
    similarity, users = pairs
    order = np.random.default_rng(len(similarity)).permutation(len(similarity))
    renamed = (users * 7919 + 13) % 1009
    first = smallest_threshold(Liked.of(similarity, users), rule)
    assert smallest_threshold(Liked.of(similarity[order], renamed[order]), rule) == first


@settings(deadline=None, max_examples=100)
@given(PAIRS, RULES)
def test_what_is_unknown_is_never_dropped_and_never_a_threshold(pairs: tuple[Array, Array], rule: Rule) -> None:
    similarity, users = pairs
    unknown = np.where(np.arange(len(similarity)) % 3 == 0, np.float32(np.nan), similarity)
    found = smallest_threshold(Liked.of(unknown, users), rule)
    assert found is None or np.isfinite(found)
    kept = np.where(np.isnan(unknown), np.float32(-2), unknown)
    lower = smallest_threshold(Liked.of(kept, users), rule)
    if found is not None and lower is not None and lower > -2:
        assert found == lower


@pytest.mark.parametrize(
    ("users", "lost", "bound", "holds"),
    [
        (19, 0.0, 0.05, True),
        (18, 0.0, 0.05, False),
        (3, 1.0, 0.5, True),
        (99, 4.0, 0.05, True),
        (99, 4.01, 0.05, False),
    ],
)
def test_small_cases_of_the_mean_over_users(users: int, lost: float, bound: float, holds: bool) -> None:
    shares = np.zeros(users)
    shares[0 : math.ceil(lost)] = np.diff([*np.arange(math.ceil(lost)), lost])
    assert shares.sum() == pytest.approx(lost)
    assert controlled(shares, np.ones(users, dtype=np.int64), Rule(bound)) is holds


def test_a_user_with_many_likes_counts_once_or_as_the_cap() -> None:
    # One user likes 1,000 items, all dropped at 0; 59 like one each, at -1.
    similarity = np.concatenate([np.full(1000, 0.5), np.full(59, -1.0)]).astype(np.float32)
    liked = Liked.of(similarity, np.concatenate([np.zeros(1000), np.arange(1, 60)]).astype(np.int64))
    assert smallest_threshold(liked, Rule(0.05)) == -1.0  # (1 + 1) / 61
    dropped = similarity > -1
    assert (liked.rate(dropped), liked.rate(dropped, None)) == (pytest.approx(1 / 60), pytest.approx(1000 / 1059))
    assert liked.rate(dropped, 10) == pytest.approx(10 / 69)
    pairs = Rule(0.2, "pair", pairs_per_user=10)  # (10 + 10) / (69 + 10) > 0.2, and (0 + 10) / 79 is within it
    assert smallest_threshold(liked, pairs) == 0.5
    assert smallest_threshold(liked, Rule(0.26, "pair", pairs_per_user=10)) == -1.0
    assert smallest_threshold(liked, Rule(0.1, "pair", pairs_per_user=10)) is None


@pytest.mark.parametrize("bound", [0.01, 0.05, 0.2])
def test_no_losses_pass_as_soon_as_the_exact_test_does(bound: float) -> None:
    rule = Rule(bound, guarantee="probability", confidence=0.9)
    least = math.ceil(math.log(0.1) / math.log(1 - bound))
    passed = [controlled(np.zeros(n), np.ones(n, dtype=np.int64), rule) for n in (least - 1, least)]
    assert passed == [False, True]


def test_no_stake_can_lose_more_than_all() -> None:
    for users in (1, 10, 1000, 10**5):
        for bound in (0.01, 0.5, 0.95):
            rule = Rule(bound, guarantee="probability")
            stake = stakes(users, rule)
            assert (stake > 0).all()
            assert (1 - stake * (1 - bound)).min() >= -1e-12
            assert capital(np.ones(users), np.ones(users, dtype=np.int64), rule) < 0


def hoeffding_bentkus(mean: float, n: int, bound: float) -> float:
    """p-value of Bates et al., equations 9 and 11."""
    h = sum(p * math.log(p / q) for p, q in ((min(mean, bound), bound), (1 - min(mean, bound), 1 - bound)) if p > 0)
    return min(math.exp(-n * h), math.e * float(binom.cdf(math.ceil(n * mean), n, bound)))


def test_betting_is_about_as_tight_as_hoeffding_bentkus_and_tighter_where_shares_vary_little() -> None:
    rng = np.random.default_rng(0)
    rule = Rule(0.1, guarantee="probability")
    few = {"betting": 0, "hoeffding-bentkus": 0, "exact": 0}
    many = dict.fromkeys(few, 0)
    for _ in range(120):
        for passed, shares in (
            (few, (rng.random(1000) < 0.08).astype(np.float64)),
            (many, rng.binomial(5, 0.09, size=1000) / 5),
        ):
            passed["betting"] += controlled(shares, np.ones(1000, dtype=np.int64), rule)
            passed["hoeffding-bentkus"] += hoeffding_bentkus(float(shares.mean()), 1000, 0.1) <= 0.1
            passed["exact"] += bool(binom.cdf(shares.sum(), 1000, 0.1) <= 0.1)
    assert few["exact"] >= few["betting"] >= 0.6 * few["hoeffding-bentkus"] > 0
    assert many["betting"] > 1.5 * many["hoeffding-bentkus"]


def draw(rng: np.random.Generator, users: int) -> tuple[Array, Array]:
    """Users with 1 to some dozen likes; those who like more lose less, and likes of one user hang together."""
    likes = rng.geometric(0.3, size=users)
    user = np.repeat(np.arange(users), likes)
    own = rng.normal(0, 1, size=users) - 0.05 * likes
    noise = rng.normal(0, 0.5, size=len(user))
    return np.tanh(own[user] + noise).astype(np.float32), user


@pytest.mark.parametrize("rate", ["user", "pair"])
def test_the_guarantee_holds_of_users_that_were_not_seen(rate: str) -> None:
    """Over draws of calibration users: the mean of the true rate for one kind, its 90 % quantile for the other."""
    rng = np.random.default_rng(1)
    truth = Liked.of(*draw(rng, 20_000))
    expectation = Rule(0.1, rate, pairs_per_user=8)  # type: ignore[arg-type]  # one of the two
    probability = Rule(0.1, rate, "probability", 0.9, 8)  # type: ignore[arg-type]  # one of the two
    rates: dict[str, list[float]] = {"expectation": [], "probability": []}
    for _ in range(120):
        liked = Liked.of(*draw(rng, 150))
        for rule in (expectation, probability):
            threshold = smallest_threshold(liked, rule)
            dropped = truth.similarity > np.float32(2 if threshold is None else threshold)
            rates[rule.guarantee].append(truth.rate(dropped, rule.cap) or 0.0)
    mean, error = np.mean(rates["expectation"]), np.std(rates["expectation"]) / np.sqrt(120)
    assert mean <= 0.1 + 2 * error
    assert mean >= 0.05, "the threshold need not be so careful"
    broken = np.asarray(rates["probability"]) > 0.1
    assert broken.mean() <= 0.1 + 2 * np.sqrt(0.09 / 120)
    assert (np.asarray(rates["expectation"]) > 0.1).mean() > broken.mean()


def test_pairs_taken_for_exchangeable_would_promise_too_much() -> None:
    """The rule that counts liked candidates, (false filters + 1) / (pairs + 1), breaks the mean over users."""
    rng = np.random.default_rng(2)
    truth = Liked.of(*draw(rng, 20_000))
    rates = []
    for _ in range(100):
        similarity = np.sort(draw(rng, 150)[0])
        allowed = math.floor(0.1 * (len(similarity) + 1)) - 1
        rates.append(truth.rate(truth.similarity > similarity[len(similarity) - 1 - allowed]) or 0.0)
    assert np.mean(rates) > 0.1 + 2 * np.std(rates) / 10


@settings(deadline=None, max_examples=60)
@given(PAIRS, RULES, st.floats(-1, 1, width=32))
def test_no_threshold_is_below_the_least(pairs: tuple[Array, Array], rule: Rule, least: float) -> None:
    liked = Liked.of(*pairs)
    free, found = smallest_threshold(liked, rule), smallest_threshold(liked, replace(rule, least=least))
    assert found == (None if free is None else max(free, least))


def test_the_rule_that_is_configured() -> None:
    config = FilterConfig(
        rate="pair", guarantee="probability", confidence=0.95, pairs_per_user=7, false_filter_rate=0.1
    )
    assert Rule.of(config) == Rule(0.1, "pair", "probability", 0.95, 7, least=0.0), "predictions weigh by rank"
    assert (Rule.of(config).cap, Rule.of(FilterConfig()).cap) == (7, 1)
