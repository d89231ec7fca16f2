"""Columns and types of the log, item and anchor files; the public contract of a run's ``data`` folder."""

from __future__ import annotations

import pyarrow as pa

__all__ = ["ANCHORS", "CANDIDATE_SCORES", "EVENTS", "ITEMS", "PREDICTIONS", "SEMANTIC_IDS", "SPLITS"]

SPLITS = ("train", "validation", "test")

EVENTS = pa.schema(
    [("user_id", pa.string()), ("item_id", pa.string()), ("timestamp", pa.int64()), ("feedback", pa.int8())]
)
ITEMS = pa.schema(
    [
        ("item_id", pa.string()),
        ("title", pa.string()),
        ("text", pa.string()),
        ("category", pa.list_(pa.string())),
        ("image", pa.string()),
    ]
)
ANCHORS = pa.schema(
    [
        ("anchor_id", pa.int64()),
        ("user_id", pa.string()),
        ("timestamp", pa.int64()),
        ("split", pa.string()),
        ("next_item", pa.string()),
        ("future_negatives", pa.list_(pa.string())),
        ("future_positives", pa.list_(pa.string())),
        ("candidates", pa.list_(pa.string())),
        ("candidate_answer", pa.string()),
        ("long_tail_user", pa.bool_()),
        ("negative_history", pa.int32()),
    ]
)
SEMANTIC_IDS = pa.schema(
    [("item_id", pa.string()), ("codes", pa.list_(pa.int32())), ("resolved_codes", pa.list_(pa.int32()))]
)
PREDICTIONS = pa.schema(
    [("anchor_id", pa.int64()), ("rank", pa.int32()), ("item_id", pa.string()), ("score", pa.float32())]
)
CANDIDATE_SCORES = pa.schema([("anchor_id", pa.int64()), ("item_id", pa.string()), ("score", pa.float32())])
