"""Where the engine's time goes, and what the other ways of doing it cost.

Claim: `outside_the_model`, the share of a plain beam search that is not spent inside the decoder (trie, heads,
softmax, top-k, masks, Python). Figures: the decoder's three passes over the time of a bare prefill, and alternatives
that were not taken, each in turns with what was taken. Same configuration as generation.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from statistics import median

import torch
from torch import Tensor

from common.catalogue import draw_blocked, draw_codes
from common.harness import Arguments, Report, Spread, arguments, take_turns
from common.machine import machine
from common.models import Sizes, qwen3, random_prompts
from conrec.items.eligible import EligibleTrie, LiveItems
from conrec.items.trie import Trie
from conrec.llm.backbone import Backbone
from conrec.llm.generation import beam_search
from conrec.llm.policy import distinct
from conrec.llm.tree import TokenTree

PARTS = ("passes", "alternatives")


@contextmanager
def clocked(backbone: Backbone, device: str) -> Iterator[list[float]]:
    """The seconds of each call of the decoder within the block."""
    seconds: list[float] = []
    begun: list[float] = []

    def now() -> float:
        if torch.device(device).type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    decoder = backbone.model.get_decoder()
    hooks = (
        decoder.register_forward_pre_hook(lambda *_: begun.append(now())),
        decoder.register_forward_hook(lambda *_: seconds.append(now() - begun.pop())),
    )
    try:
        yield seconds
    finally:
        for hook in hooks:
            hook.remove()


@dataclass(frozen=True)
class Work:
    """A batch of prompts, with the items of a group of rollouts and the blocked items of each."""

    backbone: Backbone
    prompts: Tensor
    codes: Tensor
    items: Tensor
    blocked: Tensor

    @property
    def lists(self) -> list[list[int]]:
        """The prompts as token lists."""
        rows: list[list[int]] = self.prompts.tolist()
        return rows

    def prefill(self, padding: str, backbone: Backbone | None = None) -> None:
        """The prompts alone; padded on the left they are read with a mask."""
        with torch.no_grad():
            TokenTree(backbone or self.backbone, self.lists, padding)  # type: ignore[arg-type]

    def bfloat16(self) -> None:
        """The prompts in bfloat16."""
        with torch.no_grad(), replace(self.backbone, precision="bfloat16").autocast():
            TokenTree(self.backbone, self.lists)

    def nodes(self) -> tuple[Tensor, Tensor, Tensor]:
        """Distinct first codes, distinct second codes and the parents of these, as tokens."""
        size, offset = self.backbone.codebook_size, self.backbone.code_offset
        chosen = self.codes[self.items]
        first, of_first = distinct(chosen[..., 0])
        second, _ = distinct(of_first * size + chosen[..., 1])
        return first + offset[0], second % size + offset[1], second // size

    def two_passes(self) -> None:
        """Forward and backward over prompt and nodes, as the engine does: the prompt first, then the nodes."""
        first, second, parents = self.nodes()
        tree = TokenTree(self.backbone, self.lists)
        hidden = tree.extend((first, torch.full_like(first, -1)), (second, parents), keep=False)
        self._backward(torch.cat([tree.root[:, None], hidden], 1))

    def one_pass(self) -> None:
        """The same in one pass with a mask over everything."""
        first, second, parents = self.nodes()
        rows, length = self.prompts.shape
        n, m = first.shape[1], second.shape[1]
        allowed = torch.ones(length + n + m, length + n + m, dtype=torch.bool).tril().repeat(rows, 1, 1)
        allowed[:, length:, length:] = torch.eye(n + m, dtype=torch.bool)
        allowed[:, length + n :, length : length + n] = parents.cpu()[..., None] == torch.arange(n)
        mask = torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min)[:, None]
        place = torch.arange(length + n + m)
        place[length : length + n], place[length + n :] = length, length + 1
        hidden = self.backbone.model.get_decoder()(
            input_ids=torch.cat([self.prompts, first, second], 1),
            position_ids=place.expand(rows, -1).to(self.prompts.device),
            attention_mask=mask.to(self.prompts.device, self.backbone.model.dtype),
            use_cache=False,
        ).last_hidden_state
        self._backward(hidden[:, length - 1 :])

    def plain_rows(self) -> None:
        """Forward and backward over plain causal rows of the same length, the bound."""
        first, second, _ = self.nodes()
        ids = torch.cat([self.prompts, first, second], 1)
        hidden = self.backbone.model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
        self._backward(hidden[:, self.prompts.shape[1] - 1 :])

    def _backward(self, hidden: Tensor) -> None:
        self.backbone.model.zero_grad()
        hidden.square().mean().backward()


def passes(report: Report, work: Work, k: int, turns: int, device: str) -> None:
    """The parts of a search over the time of one bare prefill."""
    report.heading(
        f"{len(work.prompts)} prompts of {work.prompts.shape[1]} tokens, {k} plain beams: parts over one bare prefill"
    )
    names = ("prompt", "first codes", "second codes", "outside the decoder")
    shares: dict[str, list[float]] = {name: [] for name in names}
    whole: list[float] = []
    live = LiveItems(Trie.from_codes(work.codes, work.backbone.codebook_size).to(work.backbone.device))

    def once() -> tuple[float, list[float]]:
        begin = time.perf_counter()
        with clocked(work.backbone, device) as seconds:
            beam_search(work.backbone, work.lists, EligibleTrie(live, work.blocked), k, certified=False)
            return time.perf_counter() - begin, list(seconds)

    def prefill() -> float:
        with clocked(work.backbone, device) as seconds, torch.no_grad():
            work.backbone.model(work.prompts, use_cache=True, logits_to_keep=1)
        return seconds[0]

    once(), prefill()
    for _ in range(turns):
        bound = median([prefill() for _ in range(2)])
        total, seconds = once()
        for name, second in zip(names, [*seconds, total - sum(seconds)], strict=True):
            shares[name].append(second / bound)
        whole.append((total - sum(seconds)) / total)
    for name in names:
        report.figure(f"over_prefill_{name.replace(' ', '_')}", Spread.of(shares[name]))
    report.claim("outside_the_model", median(whole), at_most=0.05, runs=turns)
    report.runs = turns


def alternatives(report: Report, work: Work, small: Work, turns: int, device: str) -> None:
    """What was not taken, over what was."""
    report.heading("What other ways cost, over what the engine does")
    eager = Backbone(**{**vars(work.backbone), "model": _eager(work.backbone)})
    pairs: dict[str, tuple[Callable[[], None], Callable[[], None]]] = {
        "prompt_padded_left_with_a_mask": (partial(work.prefill, "left"), partial(work.prefill, "right")),
        "prompt_by_eager_attention": (partial(work.prefill, "right", eager), partial(work.prefill, "right")),
        "prompt_in_bfloat16": (work.bfloat16, partial(work.prefill, "right")),
        "gradient_in_one_pass_with_a_full_mask": (small.one_pass, small.two_passes),
        "gradient_of_plain_causal_rows": (small.plain_rows, small.two_passes),
    }
    for name, (other, taken) in pairs.items():
        found = take_turns({"other": other, "taken": taken}, turns, device=device)
        report.figure(name, found.ratio("other", "taken"))


def _eager(backbone: Backbone) -> object:
    model = backbone.clone().model
    model.set_attn_implementation("eager")
    return model


def main() -> None:
    """Measure what the command line asks for."""
    given: Arguments = arguments(__doc__, PARTS)
    report = Report("parts", given.quick)
    described = machine(given.device)
    backbone = qwen3(Sizes(), device=given.device, dtype=given.dtype)
    codes = draw_codes(3000, backbone.codebook_size, seed=0).to(given.device)
    chance = torch.Generator().manual_seed(2)

    def work(batch: int, length: int) -> Work:
        prompts = random_prompts(backbone, batch, length, seed=1)
        items = torch.randint(len(codes), (batch, 16), generator=chance).to(given.device)
        return Work(backbone, prompts, codes, items, draw_blocked(batch, len(codes), 50))

    batch, turns = (4, 2) if given.quick else (32, 7)
    if given.wants("passes"):
        passes(report, work(batch, 240), 20, turns, given.device)
    if given.wants("alternatives"):
        alternatives(report, work(batch, 240), work(max(1, batch // 4), 240), turns, given.device)
    report.finish(described, given.json)


if __name__ == "__main__":
    main()
