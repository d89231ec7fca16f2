"""LC-Rec (arXiv 2311.09049): a language model over semantic IDs, tuned on sequences and on the meaning of the IDs.

It starts from the same translation stage as CoNRec and is then tuned on next items and translations together.
Two rows of CoNRec's Table 1:

* on negatives only: histories of dislikes, the next dislike is the target;
* on negatives and positives: histories of both signs, the next item of either sign is a target; at
  prediction it is asked for the next dislike.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from conrec.arrays import Array
from conrec.config import Context
from conrec.llm.prompts import PromptBuilder, Stretch
from conrec.llm.samples import history_stretches, translation_stretches
from conrec.logs.log import Log
from conrec.protocol import NEGATIVE, POSITIVE

__all__ = ["LC_REC_CONTEXT", "lc_rec_stretches"]

LC_REC_CONTEXT: dict[str, Context] = {"lc-rec-negatives": "negative", "lc-rec-both": "both"}
"""What a prompt of each row shows, in training and in prediction."""


def lc_rec_stretches(
    name: str,
    prompts: PromptBuilder,
    log: Log,
    end: int,
    titles: Sequence[str],
    items: Array,
    rng: np.random.Generator,
) -> list[Stretch]:
    """One pass over the training samples of a row of `LC_REC_CONTEXT`.

    Args:
        name: of the row.
        prompts: builds them.
        log: the log.
        end: T_val.
        titles: title of each catalogue item.
        items: int [n], the training items, for translation.
        rng: draws the order of events of the same second.
    """
    signs = (NEGATIVE, POSITIVE) if name == "lc-rec-both" else (NEGATIVE,)
    sequences = history_stretches(prompts, log, end, LC_REC_CONTEXT[name], rng, signs)
    return [*sequences, *translation_stretches(prompts, titles, items)]
