"""Which point of a grid is tried next: a Tree-structured Parzen Estimator over the trials so far, without repeats.

Optuna's sampler (Bergstra et al., Algorithms for Hyper-Parameter Optimization, NeurIPS 2011) is seeded anew for each
trial, by the search's seed, the row and the trial's number. A proposal then follows from the finished trials alone:
whoever is killed and goes on proposes what he would have proposed, and a larger budget begins with a smaller one's
trials. Points that were tried are never proposed again, so that a grid smaller than the budget is searched whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from conrec.comparing.grids import Grid, Point, identity
from conrec.comparing.journal import Trial
from conrec.seeds import derive, generator

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

__all__ = ["propose"]

STARTUP = 5
"""Trials before the estimator has a say; until then points are drawn evenly."""
ATTEMPTS = 10
"""Proposals of the estimator that may be points already tried; then one is drawn evenly from the others."""


def propose(grid: Grid, trials: Sequence[Trial], row: str, seed: int) -> Point | None:
    """The next point of a search, or None where the whole grid was tried.

    Args:
        grid: what may be chosen.
        trials: those finished, in order.
        row: whose settings they are.
        seed: of the search.
    """
    if not trials:
        return grid.first
    left = grid.untried({identity(one.settings) for one in trials})
    if not left:
        return None
    new = {identity(one): one for one in left}
    number = len(trials)
    if number >= STARTUP:
        for attempt in range(ATTEMPTS):
            point = _estimated(grid, trials, derive(seed, "search", row, number, attempt))
            if (found := new.get(identity(point))) is not None:
                return found
    return left[int(generator(seed, "search", row, number).integers(len(left)))]


def _estimated(grid: Grid, trials: Sequence[Trial], seed: int) -> Point:
    """What the estimator proposes after some trials."""
    import optuna  # noqa: PLC0415  (comes with an extra)

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    places = {name: _distribution(values, optuna) for name, values in grid.fields.items()}
    sampler = optuna.samplers.TPESampler(seed=seed % 2**32, n_startup_trials=0)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for one in trials:
        given = one.settings
        at = {name: values.index(given[name]) for name, values in grid.fields.items() if given[name] in values}
        if len(at) < len(grid.fields):
            continue  # the configured settings, where they do not lie on the grid
        state = optuna.trial.TrialState.FAIL if one.value is None else optuna.trial.TrialState.COMPLETE
        study.add_trial(optuna.trial.create_trial(params=at, distributions=places, value=one.value, state=state))
    asked = study.ask(fixed_distributions=dict(places)).params
    return {name: grid.fields[name][asked[name]] for name in grid.fields}


def _distribution(values: Sequence[Any], optuna: Any) -> BaseDistribution:
    """Places on a scale where the values are numbers in order, so that neighbours tell of each other; else a choice."""
    numbers = all(isinstance(one, int | float) and not isinstance(one, bool) for one in values)
    if numbers and list(values) == sorted(values):
        scale: BaseDistribution = optuna.distributions.IntDistribution(0, len(values) - 1)
        return scale
    choice: BaseDistribution = optuna.distributions.CategoricalDistribution(range(len(values)))
    return choice
