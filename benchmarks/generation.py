"""Users per second of the constrained beam search, against `generate` of transformers and one bare prefill.

Claims: `speedup_over_generate` (with `prefix_allowed_tokens_fn`), `time_over_prefill`, `largest_score_error` (plain
beams against the peer's, item by item) and `certified_equals_exhaustive` (share of lists). What the certificate costs
is shown as figures. Configuration: Qwen3 of hidden 256 and 4 layers, 3 x 256 codes, 3,000 items of which 50 are
blocked for each request, prompts of 240 tokens, 32 prompts, 20 beams. Variants have the same bounds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from common.catalogue import draw_blocked, draw_codes
from common.harness import Arguments, Report, arguments, take_turns
from common.machine import machine
from common.models import Sizes, UnavailableError, qwen3, random_prompts, smollm2
from common.peers import Lists, PrefixDictionary, TrieProcessor, error_between, exhaustive, generate
from conrec.items.eligible import EligibleTrie, LiveItems
from conrec.items.trie import Trie
from conrec.llm.backbone import Backbone
from conrec.llm.generation import Beams, beam_search

PARTS = ("main", "prompts-60", "prompts-960", "batch-1", "batch-128", "beams-50", "near-uniform", "smollm2-135m")
TIE = 1e-4
"""Scores nearer than this are equal: what float32 leaves of three log-probabilities after 240 tokens."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One configuration.

    Attributes:
        name: variant, "" for the configuration of the claims.
        blocked: items that each request must not return.
        turns: of everything that is compared.
        rows: prompts that the peer reads at a time, so that its copies fit into memory.
        processor: whether the logits processor runs too.
        warm: prompts of the peer's call before the clock runs.
    """

    name: str = ""
    prompt: int = 240
    batch: int = 32
    beams: int = 20
    items: int = 3000
    blocked: int = 50
    turns: int = 3
    rows: int = 32
    processor: bool = False
    warm: int = 1

    def suffixed(self, name: str) -> str:
        """The claim's name in this variant."""
        return f"{name}/{self.name}" if self.name else name


SETTINGS = {
    "main": Setting(processor=True, warm=32),
    "prompts-60": Setting("prompts-60", prompt=60, warm=32),
    "prompts-960": Setting("prompts-960", prompt=960, batch=8, turns=2, rows=8),
    "batch-1": Setting("batch-1", batch=1, turns=5),
    "batch-128": Setting("batch-128", batch=128, turns=2),
    "beams-50": Setting("beams-50", beams=50, batch=16, turns=2, rows=16),
    # The peer copies 30 layers 20 times for each prompt: 4 prompts are what it does in a minute.
    "smollm2-135m": Setting("smollm2-135m", batch=4, turns=2),
}
QUICK = {
    "main": {"batch": 8, "turns": 1, "warm": 1},
    "prompts-60": {"batch": 2, "turns": 1, "warm": 1},
    "prompts-960": {"batch": 1, "turns": 1, "prompt": 480},
    "batch-1": {"turns": 1},
    "batch-128": {"batch": 8, "turns": 1, "rows": 4, "prompt": 60},
    "beams-50": {"batch": 1, "turns": 1},
}
"""What --quick changes; SmolLM2 is left out."""


class Contest:
    """Ours and the peers on one model, one catalogue and one batch of prompts."""

    def __init__(self, backbone: Backbone, codes: Tensor, setting: Setting) -> None:
        self.backbone, self.codes, self.setting = backbone, codes, setting
        self.prompts = random_prompts(backbone, setting.batch, setting.prompt, seed=1)
        self.lists = self.prompts.tolist()
        self.live = LiveItems(Trie.from_codes(codes, backbone.codebook_size).to(backbone.device))
        self.blocked = draw_blocked(setting.batch, len(codes), setting.blocked)
        self.dictionary = PrefixDictionary(codes, backbone.code_offset)
        self.processor = TrieProcessor(codes, backbone.codebook_size, backbone.code_offset, backbone.device)

    @torch.no_grad()
    def prefill(self) -> object:
        """The bound: the prompts are read, once, and nothing else."""
        return self.backbone.model(self.prompts, use_cache=True, logits_to_keep=1)

    def ours(self, certified: bool = False) -> Beams:
        """As many beams as the peer has, from token lists and blocked items on."""
        return self._search(self.blocked, certified)

    def unblocked(self) -> Beams:
        """The same where every item is eligible."""
        return self._search(self.blocked[:, :0], False)

    def _search(self, blocked: Tensor, certified: bool) -> Beams:
        trie = EligibleTrie(self.live, blocked)
        k = self.setting.beams
        return beam_search(self.backbone, self.lists, trie, k, width=k, certified=certified)

    def peer(self, constraint: PrefixDictionary | TrieProcessor, batch: int | None = None) -> Lists:
        """`generate`, of all prompts or the first few."""
        one = self.setting
        return generate(self.backbone, self.prompts[:batch], one.beams, constraint, self.blocked[:batch], one.rows)

    def as_lists(self, beams: Beams) -> Lists:
        """Ours as the peer's."""
        return Lists(self.codes.to(beams.item.device)[beams.item], beams.score)


def contest(report: Report, backbone: Backbone, codes: Tensor, setting: Setting, device: str) -> None:
    """Time ours, the peers and the bound in turns, and compare the lists."""
    report.heading(
        f"{setting.name or 'main'}: {setting.batch} prompts of {setting.prompt} tokens, {setting.beams} beams, "
        f"{setting.items} items"
    )
    race = Contest(backbone, codes, setting)
    kept: dict[str, Lists] = {}
    things = {"prefill": race.prefill, "ours": race.ours, "certified": partial(race.ours, certified=True)}
    if not setting.name:
        things["unblocked"] = race.unblocked
    calls = dict.fromkeys(things, 3)
    peers: dict[str, PrefixDictionary | TrieProcessor] = {"generate": race.dictionary}
    if setting.processor:
        peers["processor"] = race.processor

    def run_peer(name: str) -> None:
        kept[name] = race.peer(peers[name])

    for name, constraint in peers.items():
        race.peer(constraint, batch=setting.warm)
        things[name] = partial(run_peer, name)
    if setting.warm < setting.batch:
        report.note(f"{setting.name or 'main'}: the peer's warm-up is a call with {setting.warm} of its prompts")
    turns = take_turns(things, setting.turns, calls=calls, warm=dict.fromkeys(peers, False), device=device)

    n = setting.turns
    speedup, over_prefill = turns.ratio("generate", "ours"), turns.ratio("ours", "prefill")
    report.claim(setting.suffixed("speedup_over_generate"), speedup.median, at_least=25, runs=n)
    if setting.processor:
        processor = turns.ratio("processor", "ours")
        report.claim("speedup_over_generate/logits-processor", processor.median, at_least=25, runs=n)
    report.claim(setting.suffixed("time_over_prefill"), over_prefill.median, at_most=1.3, runs=n)
    plain = race.as_lists(race.ours())
    size = backbone.codebook_size
    error = max(error_between(plain, one, size) for one in kept.values())
    report.claim(setting.suffixed("largest_score_error"), error, at_most=TIE, runs=1)
    for name in things:
        report.figure(setting.suffixed(f"seconds_{name}"), turns.spread(name))
    users = setting.batch / turns.spread("ours").median
    report.figure(setting.suffixed("users_per_second"), users)
    report.figure(setting.suffixed("users_per_second_generate"), setting.batch / turns.spread("generate").median)
    report.figure(setting.suffixed("speedup_over_generate"), speedup)
    report.figure(setting.suffixed("time_over_prefill"), over_prefill)
    report.figure(setting.suffixed("certified_over_plain_time"), turns.ratio("certified", "ours"))
    _nodes(report, race, setting)
    if not setting.name:
        report.figure("blocked_over_unblocked", turns.ratio("ours", "unblocked"))
        report.runs = n


def _nodes(report: Report, race: Contest, setting: Setting) -> None:
    """How many prefixes the model read, with and without the certificate."""
    for name, certified in (("plain", False), ("certified", True)):
        nodes = race.ours(certified=certified).nodes.float()
        report.figure(setting.suffixed(f"nodes_{name}"), float(nodes.mean()))
        report.figure(setting.suffixed(f"nodes_{name}_largest"), float(nodes.max()))


def certificate(report: Report, backbone: Backbone, codes: Tensor, setting: Setting, name: str) -> None:
    """Certified lists against the score of every item."""
    race = Contest(backbone, codes, setting)
    report.heading(
        f"{name or 'main'}: {setting.batch} certified lists, prompts of {setting.prompt} tokens, against the scores of "
        f"all {len(codes)} items"
    )
    every = exhaustive(backbone, race.prompts, codes, race.blocked)
    suffix = f"/{name}" if name else ""
    beams = race.ours(certified=True)
    best = every.topk(setting.beams, dim=1).values
    score = every.gather(1, beams.item.clamp(min=0))
    twice = beams.item.sort(1).values.diff(dim=1).eq(0).any(1)
    right = ((score.sort(1, descending=True).values - best).abs() <= TIE).all(1) & ~twice & (beams.item >= 0).all(1)
    report.claim(f"certified_equals_exhaustive{suffix}", float(right.float().mean()), at_least=1, runs=1)
    report.figure(f"certified_proved{suffix}", float(beams.proved.float().mean()))
    report.figure(f"certified_score_error{suffix}", float((beams.score - score).abs().max()))
    plain = race.ours()
    missed = (every.gather(1, plain.item.clamp(min=0)).sort(1, descending=True).values - best).abs() > TIE
    report.figure(f"plain_lists_not_exact{suffix}", float(missed.any(1).float().mean()))


def near_uniform(report: Report, given: Arguments, setting: Setting, exact: Setting) -> None:
    """The worst case of the certificate: a model that knows nothing yet."""
    backbone = qwen3(Sizes(), peaked=False, device=given.device, dtype=given.dtype)
    codes = draw_codes(setting.items, 256, seed=0)
    report.heading("near-uniform: the same configuration with a model that was only initialised")
    race = Contest(backbone, codes, replace(setting, name="near-uniform"))
    things = {"ours": race.ours, "certified": partial(race.ours, certified=True)}
    turns = take_turns(things, setting.turns, calls={"ours": 2}, device=given.device)
    report.figure("certified_over_plain_time/near-uniform", turns.ratio("certified", "ours"))
    _nodes(report, race, race.setting)
    certificate(report, backbone, codes, replace(exact, batch=-(-exact.batch // 4)), "near-uniform")


def main() -> None:
    """Measure what the command line asks for."""
    given = arguments(__doc__, PARTS)
    report = Report("generation", given.quick)
    described = machine(given.device)
    settings = SETTINGS
    if given.quick:
        settings = {name: replace(SETTINGS[name], **changes) for name, changes in QUICK.items()}
        sizes = ", ".join(f"{name} {one.batch} x {one.prompt}" for name, one in settings.items())
        report.note(f"quick, prompts x tokens: {sizes}; no SmolLM2")
    # Every prefix is read for each of these prompts, so that there are fewer.
    exact = replace(SETTINGS["main"], **({"batch": 2, "prompt": 60} if given.quick else {"batch": 16}))
    codes = draw_codes(settings["main"].items, 256, seed=0)
    backbone = qwen3(Sizes(), device=given.device, dtype=given.dtype)
    for name, setting in settings.items():
        if given.wants(name) and name != "smollm2-135m":
            contest(report, backbone, codes, setting, given.device)
            if name == "main":
                certificate(report, backbone, codes, exact, "")
    if given.wants("near-uniform"):
        near_uniform(report, given, settings["main"], exact)
    if given.wants("smollm2-135m") and not given.quick:
        try:
            large = smollm2(256, device=given.device, dtype=given.dtype)
        except UnavailableError as error:
            report.note(f"smollm2-135m is left out: {error}")
        else:
            contest(report, large, codes, settings["smollm2-135m"], given.device)
    report.finish(described, given.json)


if __name__ == "__main__":
    main()
