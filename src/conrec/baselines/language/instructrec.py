"""InstructRec (arXiv 2305.07001): a language model tuned to choose among candidates by title.

Two of the paper's task forms: *reranking*, a prompt that shows titles of the history and the titles of the candidates
and whose answer is the title of one of them, and *matching*, without candidates, whose answer is any title. A
candidate's score is the mean log-probability of the tokens of its title, end token included, behind the prompt that
lists them; the mean over a few orders of the list, since a model likes some places better than others. The catalogue is
ranked by the log-probability of a title behind the prompt without a list. Departures:

* the target is the next dislike; the history shows dislikes and likes apart;
* intentions and preferences in words, which the paper lets GPT write from reviews, are not there;
* candidates are drawn as those of the anchors are: items of the user's day (see `exposed`), not negatives drawn at
  random from the catalogue;
* it starts from the translation stage and all of its weights are trained; the paper tunes Flan-T5-XL;
* the state with the best AUC on the candidates of validation anchors is kept: there may be no ranking to choose by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from conrec.baselines.language.exposed import draw_exposed
from conrec.baselines.language.title_model import TitleModel
from conrec.baselines.language.title_tree import Branches, log_probabilities_of
from conrec.llm.prompts import Stretch, answered
from conrec.llm.tree import TokenTree
from conrec.logs.log import Log
from conrec.protocol import CANDIDATES, DAY
from conrec.seeds import generator
from conrec.settings.baselines.language import InstructRecConfig
from conrec.workspace import Workspace

__all__ = ["SPACE", "InstructRec"]

SPACE: dict[str, tuple[float | int, ...]] = {
    "samples": (4_000, 8_000, 16_000),
    "history": (5, 10, 20),
    "learning_rate": (3e-4, 1e-3),
}
"""The grid that `conrec baselines search` searches."""


@dataclass(frozen=True)
class InstructRec(TitleModel):
    """A fitted InstructRec."""

    settings: InstructRecConfig

    section: ClassVar[str] = "instructrec"

    def samples(self, space: Workspace, name: str) -> list[Stretch]:
        """One pass over training anchors, drawn where there are more than `TitleSettings.samples`."""
        settings, config = space.config.baselines.instructrec, space.config
        rng = generator(config.run.seed, name, "samples")
        anchors = space.prepared.anchors.of_split("train")
        anchors = anchors.select(rng.permutation(len(anchors))[: settings.samples])
        horizon = config.protocol.horizon_days * DAY
        exposed = draw_exposed(space.training_log, anchors, horizon, CANDIDATES - 1, rng)
        found = []
        for row in range(len(exposed)):
            user, time, item = int(exposed.user[row]), int(exposed.timestamp[row]), int(exposed.item[row])
            if rng.random() < settings.matching:
                prompt = self.prompts.matching(space.training_log, user, time)
            else:
                candidates = rng.permutation([item, *exposed.others[row].tolist()])
                prompt = self.prompts.choice(space.training_log, user, time, candidates)
            found.append(answered(prompt, self.prompts.title(item)))
        return found

    def candidate_prompts(self, log: Log, user: int, timestamp: int, candidates: Sequence[int]) -> list[list[int]]:
        """The candidates in orders that hang on user, time and the number of the order alone."""
        numbers = range(self.settings.orders)
        orders = [generator(number, "order", user, timestamp).permutation(len(candidates)) for number in numbers]
        return [self.prompts.choice(log, user, timestamp, [candidates[one] for one in order]) for order in orders]

    def catalogue_prompt(self, log: Log, user: int, timestamp: int) -> list[int]:
        """The prompt without a list."""
        return self.prompts.matching(log, user, timestamp)

    def sequence(self, item: int) -> list[int]:
        """The title but for the token that ends it, which is asked and not read."""
        return self.prompts.title(item)[:-1]

    def title_scores(self, tree: TokenTree, branches: Branches, *, listed: bool) -> Float[Tensor, "B C"]:
        """Log-probability of each title and its end: the mean of its tokens among candidates, else their sum."""
        end = torch.full(branches.node.shape[:2], self.backbone.end, device=branches.node.device)
        total = log_probabilities_of(self.backbone, tree, branches, end)
        return total / (branches.length + 1) if listed else total
