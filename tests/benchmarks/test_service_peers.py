"""What the service is measured against drops what the service drops."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from common.filter_world import item_id, make_run, user_id  # noqa: E402
from common.service_peers import ANSWER_BYTES, bound, plain, tuned  # noqa: E402
from conrec.filtering.serving.app import create_app  # noqa: E402
from conrec.filtering.serving.opening import Source  # noqa: E402
from conrec.filtering.serving.service import Service  # noqa: E402
from conrec.filtering.serving.settings import TOKEN_VARIABLE, ServeSettings  # noqa: E402


@pytest.mark.parametrize("application", [plain, tuned])
def test_peers_and_ours_agree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, application: Callable[[Path], Any]
) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    run = make_run(tmp_path / "run", 40, 300, dim=32, dropped=0.3)
    chance = np.random.default_rng(0)
    service = Service(Source(run).live(), ServeSettings(), run)
    with TestClient(create_app(service), base_url="http://localhost") as ours, TestClient(application(run)) as theirs:
        dropped = differing = 0
        for user in [*range(20), 1_000]:
            question = {
                "user_id": user_id(user),
                "item_ids": [item_id(int(one)) for one in chance.integers(0, 320, 100)],
            }
            one, other = (client.post("/v1/filter", json=question).json() for client in (ours, theirs))
            assert one["known_user"] == other["known_user"] == (user < 40)
            assert one["store"]["version"] == other["store"]["version"]
            dropped += len(one["dropped"])
            differing += abs(len(one["dropped"]) - len(other["dropped"])) + (one["kept"] != other["kept"])
    service.close()
    assert dropped > 50
    # float32 against whole numbers: a candidate at the very threshold may fall on either side.
    assert differing <= 2


def test_the_bound_reads_all_and_answers_as_many_bytes() -> None:
    parts = [{"body": b"x", "more_body": True}, {"body": b"y", "more_body": False}]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return parts.pop(0)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(bound({"type": "http"}, receive, send))
    assert parts == []
    assert len(sent[1]["body"]) == ANSWER_BYTES
