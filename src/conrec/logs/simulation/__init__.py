"""A made-up platform: users with true interests, a recommender that exposes and suppresses, and its log."""

from __future__ import annotations

from conrec.logs.simulation.truth import Interests, read_world, true_interests
from conrec.logs.simulation.world import World, draw_world
from conrec.logs.simulation.write import Simulated, simulate, simulation_config

__all__ = [
    "Interests",
    "Simulated",
    "World",
    "draw_world",
    "read_world",
    "simulate",
    "simulation_config",
    "true_interests",
]
