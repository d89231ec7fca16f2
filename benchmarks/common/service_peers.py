"""What the service is measured against, each ``python benchmarks/common/service_peers.py NAME RUN PORT``.

``plain``: the filter behind FastAPI as its documentation shows it: pydantic models for question and answer, NumPy in
float32 for the similarities, the same store. ``tuned``: the same by somebody who knows where the time goes: answered
in the event loop, msgspec for question and answer, one look-up, one product and one mask for all candidates.
``bound``: an answer of the same length to every request, read and not
looked at, which is what uvicorn can do at most.
"""

from __future__ import annotations

import sys
from itertools import compress, repeat
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import uvicorn
from fastapi import FastAPI, Request, Response
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


class TunedQuestion(msgspec.Struct, gc=False):
    user_id: str
    item_ids: list[str]


class TunedDropped(msgspec.Struct, gc=False):
    item_id: str
    similarity: float
    reason: str


def tuned(run: Path) -> Any:
    """The filter as one would write it who has measured it."""
    from conrec.artefacts import read_tensors  # noqa: PLC0415
    from conrec.filtering.filter import NegativeFilter  # noqa: PLC0415

    opened = NegativeFilter.load(run)
    catalogue, store, threshold = opened.catalogue, opened.store, opened.threshold
    rebuilt = read_tensors(run / "items" / "rebuilt.safetensors")["rebuilt"]
    position = {item_id: row for row, item_id in enumerate(catalogue.item_ids)}
    meta = store.meta
    of = msgspec.Raw(
        msgspec.json.encode(
            {
                "model": meta.model,
                "version": store.version[:16],
                "written_at": meta.written_at,
                "threshold": threshold,
            }
        )
    )
    read, write = msgspec.json.Decoder(TunedQuestion).decode, msgspec.json.Encoder().encode

    app = FastAPI()

    @app.post("/v1/filter")
    async def judge(request: Request) -> Response:
        question = read(await request.body())
        found, items = store.get(question.user_id), question.item_ids
        kept: list[str] = items
        dropped: list[TunedDropped] = []
        if found is not None and threshold is not None:
            rows = np.fromiter(map(position.get, items, repeat(-1)), dtype=np.int64, count=len(items))
            similarity = (rebuilt[rows] @ rebuilt[catalogue.items_of(found.codes)].T).max(axis=1)
            out = (similarity > threshold) & (rows >= 0)
            at = np.flatnonzero(out)
            kept = list(compress(items, (~out).tobytes()))
            dropped = [
                TunedDropped(items[row], value, "above the threshold")
                for row, value in zip(at.tolist(), similarity[at].tolist(), strict=True)
            ]
        answer = {
            "user_id": question.user_id,
            "known_user": found is not None,
            "kept": kept,
            "dropped": dropped,
            "store": of,
        }
        return Response(write(answer), media_type="application/json")

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
    app = bound if name == "bound" else {"plain": plain, "tuned": tuned}[name](Path(run))
    lifespan = "off" if name == "bound" else "auto"
    uvicorn.run(app, port=int(port), log_level="warning", access_log=False, lifespan=lifespan)


if __name__ == "__main__":
    main()
