"""The trie of a million semantic IDs: what it takes to build, to hold and to ask, against a dictionary of prefixes.

Claims: `bytes_per_item` and `mask_share_of_step`, the time of everything that the trie adds to the two decode steps
(what each request's blocked items empty, look-ups, picking out, masks) by the time of these steps. What the steps would
take without any trie is shown beside it. Configuration: a million clustered semantic IDs over 3 x 8192 codes; Qwen3 of
hidden 256 and 4 layers, 32 prompts of 240 tokens, 20 beams, 50 blocked items a request.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.catalogue import draw_blocked, draw_codes
from common.harness import Report, arguments, take_turns
from common.machine import machine
from common.memory import Peak, alone
from common.models import Sizes, qwen3, random_prompts
from common.peers import PrefixDictionary
from conrec.items.eligible import EligibleTrie, LiveItems
from conrec.items.trie import Trie
from conrec.items.trie_file import load_trie, save_trie
from conrec.llm.backbone import Backbone
from conrec.llm.policy import next_codes
from conrec.llm.tree import TokenTree

PARTS = ("main", "uniform", "dictionary")


@dataclass(frozen=True, slots=True)
class Setting:
    """A catalogue, and the batch whose decode steps are timed."""

    items: int = 1_000_000
    codebook: int = 8192
    clustered: bool = True
    batch: int = 32
    prompt: int = 240
    beams: int = 20
    blocked: int = 50
    turns: int = 5


class Step:
    """One decode step of a beam search: the beams are read, what may follow is scored, and the best are kept.

    Args:
        backbone: the model.
        tree: with all nodes before those of this step.
        trie: what is allowed.
        tokens: of each beam, int64 [B, K].
        parents: node of each beam's prefix that is one code shorter.
        state: where each beam stands in the trie.
        level: of the codes that follow.
    """

    def __init__(
        self, backbone: Backbone, tree: TokenTree, trie: EligibleTrie, tokens: Tensor, parents: Tensor, state: Tensor,
        level: int,
    ) -> None:  # fmt: skip
        self.backbone, self.tree, self.trie = backbone, tree, trie
        self.tokens, self.parents, self.state, self.level = tokens, parents, state, level
        self.logits = backbone.head(self._read(), level).float()
        self.best = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)  # any places will do

    def _read(self, keep: bool = False) -> Tensor:
        return self.tree.extend((self.tokens, self.parents), keep=keep)

    @torch.no_grad()
    def whole(self, keep: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """The step; returns code, parent beam and state of the beams that are kept, [B, K] each."""
        following = next_codes(self.backbone, self._read(keep), self.trie, self.state, self.level)
        width = following.code.shape[-1]
        best = following.log_probability.flatten(1).topk(self.tokens.shape[1], dim=1).indices
        return following.code.flatten(1).gather(1, best), best // width, following.state.flatten(1).gather(1, best)

    @torch.no_grad()
    def lookups(self) -> tuple[Tensor, ...]:
        """All that the trie adds to it.

        The children of each beam, their logits picked out of the level's, unused places masked, and code and state of
        the beams that are kept.
        """
        children = self.trie.children(self.state, self.level)
        # A step in which few codes may follow multiplies only their rows and picks nothing out; that is not credited.
        masked = torch.where(children.allowed, self.logits.gather(-1, children.code), -torch.inf)
        best = self.best % children.code[0].numel()
        return masked, children.code.flatten(1).gather(1, best), children.state.flatten(1).gather(1, best)

    @torch.no_grad()
    def plain(self) -> Tensor:
        """The same step without any trie: all codes of the level, their softmax, and the best of them."""
        logits = self.backbone.head(self._read(), self.level).float()
        return logits.log_softmax(-1).flatten(1).topk(self.tokens.shape[1], dim=1).indices


def measure(report: Report, setting: Setting, name: str, device: str, dtype: torch.dtype) -> None:
    """Build, hold and ask."""
    suffix = f"/{name}" if name else ""
    kind = "clustered" if setting.clustered else "uniform"
    report.heading(f"{name or 'main'}: {setting.items:,} {kind} items over 3 x {setting.codebook}")
    codes = draw_codes(setting.items, setting.codebook, seed=0, clustered=setting.clustered)
    builds = take_turns({"build": lambda: Trie.from_codes(codes, setting.codebook)}, 3)
    trie = Trie.from_codes(codes, setting.codebook)
    report.claim(f"bytes_per_item{suffix}", trie.nbytes / setting.items, at_most=100, runs=1)
    report.figure(f"build_seconds{suffix}", builds.spread("build"))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trie.safetensors"
        saved = take_turns(
            {"save": lambda: save_trie(file, trie), "load": lambda: load_trie(file, trie.codes.numpy())}, 3
        )
        report.figure(f"file_bytes_per_item{suffix}", file.stat().st_size / setting.items)
        report.figure(f"save_seconds{suffix}", saved.spread("save"))
        report.figure(f"load_seconds{suffix}", saved.spread("load"))

    live = LiveItems(trie.to(device))
    blocked = draw_blocked(setting.batch, setting.items, setting.blocked)
    steps = _steps(live, blocked, setting, device, dtype)
    things: dict[str, Callable[[], Any]] = {"blocking": lambda: EligibleTrie(live, blocked)}
    for step in steps:
        things[f"step_{step.level}"] = step.whole
        things[f"plain_{step.level}"] = step.plain
        things[f"lookups_{step.level}"] = step.lookups
    turns = take_turns(things, setting.turns, calls=dict.fromkeys(things, 5), device=device)
    whole = ("step_1", "step_2", "blocking")
    shares = turns.ratio(("lookups_1", "lookups_2", "blocking"), whole)
    report.claim(f"mask_share_of_step{suffix}", shares.median, at_most=0.05, runs=setting.turns)
    report.figure(f"mask_share_of_step{suffix}", shares)
    without = turns.ratio(("plain_1", "plain_2"), whole)
    report.figure(f"steps_without_trie_over_steps{suffix}", without)
    report.figure(f"seconds_of_blocking{suffix}", turns.spread("blocking"))
    for step in steps:
        where = f"after_{step.level}_codes{suffix}"
        report.figure(f"places_for_each_beam_{where}", step.trie.children(step.state, step.level).code.shape[-1])
        report.figure(f"mask_share_{where}", turns.ratio(f"lookups_{step.level}", f"step_{step.level}"))
        for one in ("step", "plain", "lookups"):
            report.figure(f"seconds_of_{one}_{where}", turns.spread(f"{one}_{step.level}"))
    if not name:
        report.runs = setting.turns
        _dictionary_lookups(report, steps[0], codes, setting)


@torch.no_grad()
def _steps(live: LiveItems, blocked: Tensor, setting: Setting, device: str, dtype: torch.dtype) -> list[Step]:
    """The two decode steps of a search, after the first and after the second code."""
    backbone = qwen3(Sizes(codebook=setting.codebook), device=device, dtype=dtype)
    eligible = EligibleTrie(live, blocked)
    prompts = random_prompts(backbone, setting.batch, setting.prompt, seed=1).tolist()

    def step(tree: TokenTree, code: Tensor, parents: Tensor, state: Tensor, level: int) -> Step:
        return Step(backbone, tree, eligible, code + backbone.code_offset[level - 1], parents, state, level)

    def first() -> tuple[TokenTree, Step]:
        tree = TokenTree(backbone, prompts)
        root = next_codes(backbone, tree.root[:, None], eligible, eligible.root(), 0)
        best = root.log_probability.flatten(1).topk(setting.beams, dim=1).indices
        code, state = (one.flatten(1).gather(1, best) for one in (root.code, root.state))
        return tree, step(tree, code, torch.full_like(code, -1), state, 1)

    # The two steps run in turns, so that each has a tree of its own; that of the second holds the first one's nodes.
    _, one = first()
    tree, begun = first()
    code, beam, state = begun.whole(keep=True)
    return [one, step(tree, code, beam, state, 2)]


def _dictionary_lookups(report: Report, step: Step, codes: Tensor, setting: Setting) -> None:
    """The same question to a dictionary, as `prefix_allowed_tokens_fn` asks it: once a beam."""
    offsets = step.backbone.code_offset
    begin = time.perf_counter()
    dictionary = PrefixDictionary(codes, offsets)
    report.figure("build_seconds_dictionary", time.perf_counter() - begin)
    beams = step.tokens.flatten().tolist()
    scores = torch.randn(len(beams), offsets[-1] + setting.codebook, device=step.tokens.device)

    def ask() -> Tensor:
        mask = torch.full_like(scores, -torch.inf)
        for row, token in enumerate(beams):
            mask[row, dictionary.following[(token,)]] = 0
        return scores + mask

    asked = take_turns({"dictionary": ask, "ours": step.lookups}, setting.turns, calls={"ours": 5})
    report.figure("seconds_of_dictionary_lookups_after_1_codes", asked.spread("dictionary"))
    report.figure("dictionary_over_trie_lookup_time", asked.ratio("dictionary", "ours"))


def resident_bytes(threads: int, kind: str, setting: Setting) -> float:
    """Bytes an item by which a process grows as it builds one of the two."""
    torch.set_num_threads(threads)
    codes = draw_codes(setting.items, setting.codebook, seed=0, clustered=setting.clustered)
    peak = Peak("cpu")
    if kind == "trie":
        kept: object = Trie.from_codes(codes, setting.codebook)
    else:
        kept = PrefixDictionary(codes, (0, setting.codebook, 2 * setting.codebook))
    grown = peak.mebibytes() * 2**20 / setting.items
    del kept
    return grown


def main() -> None:
    """Measure what the command line asks for."""
    given = arguments(__doc__, PARTS)
    report = Report("trie", given.quick)
    described = machine(given.device)
    setting = Setting()
    if given.quick:
        setting = replace(setting, items=100_000, turns=2)
        report.note("quick: 100,000 items")
    if given.wants("main"):
        measure(report, setting, "", given.device, given.dtype)
    if given.wants("uniform"):
        measure(report, replace(setting, clustered=False), "uniform", given.device, given.dtype)
    if given.wants("dictionary"):
        report.heading("memory that a process grows by at most while it builds, bytes an item")
        try:
            for kind in ("trie", "dictionary"):
                report.figure(f"peak_bytes_per_item_{kind}", alone(resident_bytes, kind, setting))
        except OSError as error:
            report.note(f"memory is left out: {error}")
    report.finish(described, given.json)


if __name__ == "__main__":
    main()
