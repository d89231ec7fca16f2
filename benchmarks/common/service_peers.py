"""What the service is measured against, each ``python benchmarks/common/service_peers.py NAME RUN PORT``.

``plain``: the filter behind FastAPI as its documentation shows it: pydantic models for question and answer, NumPy in
float32 for the similarities, the same store. ``bound``: an answer of the same length to every request, read and not
looked at, which is what uvicorn can do at most.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from pydantic import BaseModel

__all__ = ["ANSWER_BYTES"]

ANSWER_BYTES = 22_000
"""About what the service answers to 1,000 candidates of which a tenth is dropped."""


class Question(BaseModel):
    user_id: str
    item_ids: list[str]


class Dropped(BaseModel):
    item_id: str
    similarity: float | None
    reason: str


class Store(BaseModel):
    model: str
    version: str
    written_at: int
    threshold: float | None


class Answer(BaseModel):
    user_id: str
    known_user: bool
    kept: list[str]
    dropped: list[Dropped]
    store: Store


def plain(run: Path) -> Any:
    """The filter as one would write it in an afternoon."""
    from fastapi import FastAPI  # noqa: PLC0415

    from conrec.artefacts import read_tensors  # noqa: PLC0415
    from conrec.filtering.filter import NegativeFilter  # noqa: PLC0415

    opened = NegativeFilter.load(run)
    catalogue, store, threshold = opened.catalogue, opened.store, opened.threshold
    rebuilt = read_tensors(run / "items" / "rebuilt.safetensors")["rebuilt"]
    position = {item_id: row for row, item_id in enumerate(catalogue.item_ids)}
    meta = store.meta

    app = FastAPI()

    @app.post("/v1/filter")
    def judge(question: Question) -> Answer:
        found = store.get(question.user_id)
        kept, dropped = [], []
        if found is None or threshold is None:
            kept = question.item_ids
        else:
            rows = np.array([position.get(one, -1) for one in question.item_ids])
            similarity = (rebuilt[rows] @ rebuilt[catalogue.items_of(found.codes)].T).max(axis=1)
            for item_id, row, value in zip(question.item_ids, rows, similarity, strict=True):
                if row >= 0 and value > threshold:
                    dropped.append(Dropped(item_id=item_id, similarity=value, reason="above the threshold"))
                else:
                    kept.append(item_id)
        of = Store(model=meta.model, version=store.version[:16], written_at=meta.written_at, threshold=threshold)
        return Answer(user_id=question.user_id, known_user=found is not None, kept=kept, dropped=dropped, store=of)

    return app


async def bound(scope: Any, receive: Any, send: Any) -> None:
    """The same bytes to everybody."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-type", b"application/json"), (b"content-length", str(ANSWER_BYTES).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b" " * ANSWER_BYTES})


def main() -> None:
    """Serve what the command line names."""
    name, run, port = sys.argv[1:]
    app = plain(Path(run)) if name == "plain" else bound
    lifespan = "auto" if name == "plain" else "off"
    uvicorn.run(app, port=int(port), log_level="warning", access_log=False, lifespan=lifespan)


if __name__ == "__main__":
    main()
