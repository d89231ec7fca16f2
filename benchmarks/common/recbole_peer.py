"""RecBole 1.2.1 on a leave-one-out log, run by an interpreter of its own: ``python recbole_peer.py COMMAND SPEC``.

RecBole cannot stand among our dependencies: it pins ray 2.6 and does not start with the NumPy and the PyTorch that we
use. It lives in a virtual environment of its own, and this script, which imports nothing of ours, runs there:

    python3.11 -m venv recbole_env
    recbole_env/bin/pip install torch==2.13.0 numpy==1.26.4 "pandas<3" scipy scikit-learn pyyaml tqdm texttable \
        tabulate psutil colorama==0.4.4 colorlog==4.7.2
    recbole_env/bin/pip install --no-deps recbole==1.2.1

What is patched, and why (`patch`); the models, their losses, their batches and their trainers are RecBole's:

* ``torch.load`` reads the checkpoints that the same process wrote a moment ago, which hold more than tensors;
* tensorboard is replaced by a writer that writes nothing;
* names of NumPy that version 2 has dropped are put back, where they are missing;
* one of RecBole's models (SINE) turns on PyTorch's search for the origin of NaN, for all others too, as soon as it is
  imported; that is turned off again, and training takes half the time;
* numbers below 1e-38 count as zero. An epoch of Caser took 28 s of the processor at first and 85 s from the third on;
  that such numbers are why is a guess, not tried yet. (The frozen values of SASRec were made before this line.)
* ``recbole.quick_start`` is not used: it needs ray and thop, for nothing that is asked here.

``train`` also replaces two functions by faster ones that compute the same (`hasten`), so that a processor finishes in a
day; ``serve``, which is timed, leaves both as they are.

Commands; SPEC is a JSON object, and the answer is the last line of the standard output:

* ``train``: train a model, keep the state with the best validation NDCG@10, and rank each user's test item;
* ``serve``: prepare SASRec, then read one word a line: ``epoch`` trains one epoch, ``score`` ranks the 20 best items
  for every user, each answered by one line.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import types
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

TOP_K = 20


def patch() -> None:
    """Make RecBole start; called before anything of it is imported."""
    load = torch.load
    torch.load = lambda *given, **named: load(*given, **{**named, "weights_only": False})

    class Silent:
        def __init__(self, *_: Any, **__: Any) -> None: ...

        def add_scalar(self, *_: Any, **__: Any) -> None: ...

        def add_hparams(self, *_: Any, **__: Any) -> None: ...

    board = types.ModuleType("torch.utils.tensorboard")
    board.SummaryWriter = Silent  # type: ignore[attr-defined]
    sys.modules["torch.utils.tensorboard"] = board
    for name, value in {"float_": np.float64, "complex_": np.complex128, "unicode_": np.str_}.items():
        if name not in np.__dict__:
            setattr(np, name, value)


def hasten() -> None:
    """GELU in one operation instead of five, and the masks of dropout from a generator that is ten times as fast."""
    from recbole.model.layers import FeedForward  # noqa: PLC0415

    FeedForward.gelu = lambda _, x: torch.nn.functional.gelu(x)
    random = np.random.Generator(np.random.SFC64(torch.initial_seed()))

    def dropout(self: torch.nn.Dropout, x: torch.Tensor) -> torch.Tensor:
        if not self.training or self.p == 0:
            return x
        drawn = torch.from_numpy(np.frombuffer(random.bytes(2 * x.numel()), dtype=np.int16).copy()).view(x.shape)
        kept = drawn >= round(self.p * 65536) - 32768
        return x * kept.to(x.dtype).mul_(1 / (1 - self.p))

    torch.nn.Dropout.forward = dropout


class Run:
    """A model of RecBole on a log.

    Args:
        spec: ``model``; ``data``: folder of ``NAME.inter``, which is called NAME; ``seed``; ``threads``; ``settings``:
            what differs from RecBole's defaults.
        folder: for checkpoints.
        more: further settings.
    """

    def __init__(self, spec: dict[str, Any], folder: Path, more: dict[str, Any] | None = None) -> None:
        from recbole.config import Config  # noqa: PLC0415
        from recbole.data import create_dataset, data_preparation  # noqa: PLC0415
        from recbole.utils import get_model, get_trainer, init_seed  # noqa: PLC0415

        data = Path(spec["data"])
        self.config = Config(
            model=spec["model"],
            dataset=data.name,
            config_dict={
                "data_path": str(data.parent),
                "checkpoint_dir": str(folder),
                "use_gpu": False,
                "show_progress": False,
                "seed": spec["seed"],
                "load_col": {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id", "class"]},
                "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full", "group_by": "user"},
                "train_neg_sample_args": None,
                "metrics": ["Hit", "NDCG", "MRR"],
                "topk": [10, 20],
                "valid_metric": "NDCG@10",
                "metric_decimal_place": 6,
                **spec["settings"],
                **(more or {}),
            },
        )
        init_seed(self.config["seed"], self.config["reproducibility"])
        self.dataset = create_dataset(self.config)
        self.train, self.validation, self.test = data_preparation(self.config, self.dataset)
        init_seed(self.config["seed"], self.config["reproducibility"])
        torch.autograd.set_detect_anomaly(False)
        self.model = get_model(self.config["model"])(self.config, self.train._dataset)
        self.trainer = get_trainer(self.config["MODEL_TYPE"], self.config["model"])(self.config, self.model)

    @torch.no_grad()
    def ranks(self, histories: dict[str, list[str]]) -> dict[str, list[int]]:
        """Place of each user's test item among all items, and among those that are not in his history, by user."""
        self.model.eval()
        self.trainer.tot_item_num = self.dataset.item_num
        found = {}
        for batch in self.test:
            interaction, scores, _, target = self.trainer._full_sort_batch_eval(batch)
            users = self.dataset.id2token("user_id", interaction["user_id"].numpy())
            for user, row, item in zip(users, scores, target.tolist(), strict=True):
                before = row > row[item]
                everywhere = 1 + int(before.sum())
                before[torch.as_tensor(self.dataset.token2id("item_id", np.asarray(histories[user])))] = False
                found[str(user)] = [everywhere, 1 + int(before.sum())]
        return found

    @torch.no_grad()
    def score(self) -> None:
        """The best items of every user, as RecBole's evaluation ranks them."""
        self.model.eval()
        self.trainer.tot_item_num = self.dataset.item_num
        for batch in self.test:
            torch.topk(self.trainer._full_sort_batch_eval(batch)[1], TOP_K, dim=-1)


def histories_of(data: Path) -> dict[str, list[str]]:
    """All items of each user but the last."""
    events = defaultdict(list)
    for line in (data / f"{data.name}.inter").read_text(encoding="utf-8").splitlines()[1:]:
        user, item, moment = line.split("\t")
        events[user].append((int(moment), item))
    return {user: [item for _, item in sorted(own)[:-1]] for user, own in events.items()}


def train(spec: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Train one model; S3-Rec is pretrained first. Times are of the processor, which other work may share."""
    more: dict[str, Any] = {}
    begin = time.process_time()
    torch.manual_seed(spec["seed"])
    hasten()
    if spec["model"] == "S3Rec":
        epochs = spec["settings"]["pretrain_epochs"]
        first = Run(spec, folder, {"train_stage": "pretrain", "save_step": epochs})
        first.trainer.fit(first.train, show_progress=False)
        print(f"S3Rec pretrained: {time.process_time() - begin:.0f} s", file=sys.stderr, flush=True)
        more = {"train_stage": "finetune", "pre_model_path": first.trainer.saved_model_file}
    pretraining = time.process_time() - begin
    run = Run(spec, folder, more)
    curve: list[list[float]] = []

    def note(epoch: int, value: float) -> None:
        curve.append([epoch + 1, round(float(value), 6)])
        took = f"{spec['model']} {spec['seed']}: epoch {epoch + 1}, {value:.4f}, {time.process_time() - begin:.0f} s"
        print(took, file=sys.stderr, flush=True)

    begin_training = time.process_time()
    run.trainer.fit(run.train, run.validation, verbose=False, saved=True, show_progress=False, callback_fn=note)
    seconds = time.process_time() - begin_training
    own = run.trainer.evaluate(run.test, load_best_model=True, show_progress=False)
    return {
        "parameters": sum(one.numel() for one in run.model.parameters()),
        "best_epoch": max(curve, key=lambda pair: pair[1])[0],
        "epochs": len(curve),
        "cpu_seconds": round(seconds, 1),
        "cpu_seconds_of_pretraining": round(pretraining, 1) if more else 0.0,
        "validation_ndcg@10": curve,
        "own_test_figures": {name: float(value) for name, value in own.items()},
        "ranks": run.ranks(histories_of(Path(spec["data"]))),
        "versions": {"torch": torch.__version__, "numpy": np.__version__},
    }


def serve(spec: dict[str, Any], folder: Path, answer: Any) -> None:
    """Do what each line asks for."""
    run = Run(spec, folder)
    answer({"ready": len(run.train._dataset)})
    for line in sys.stdin:
        begin = time.perf_counter()
        if line.strip() == "epoch":
            run.trainer._train_epoch(run.train, 0)
        elif line.strip() == "score":
            run.score()
        else:
            break
        answer({"seconds": time.perf_counter() - begin})


def main() -> None:
    """Run one command."""
    command, spec = sys.argv[1], json.loads(sys.argv[2])
    sys.argv = sys.argv[:1]  # RecBole reads the command line, too
    out, sys.stdout = sys.stdout, sys.stderr

    def answer(found: dict[str, Any]) -> None:
        print(json.dumps(found), file=out, flush=True)

    patch()
    torch.set_num_threads(spec["threads"])
    torch.set_flush_denormal(True)
    with tempfile.TemporaryDirectory() as folder:
        if command == "train":
            answer(train(spec, Path(folder)))
        else:
            serve(spec, Path(folder), answer)


if __name__ == "__main__":
    main()
