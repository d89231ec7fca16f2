"""A small CLIP for film posters, trained in minutes on one core, for machines that cannot fetch a real one.

    python -m benchmarks.common.small_clip POSTERS OUT [--unseen ITEMS]

The image tower is a small ResNet on 64 × 96 pixels, from scratch; the text tower is all-MiniLM-L6-v2 as it is (Zhai et
al., 2022, arXiv 2111.07991: a locked text tower), with a linear layer on top. The two are trained with the symmetric
softmax loss of CLIP (Radford et al., 2021, arXiv 2103.00020, figure 3) on posters with their titles and abstracts. OUT
is a folder that sentence-transformers loads, as ``encoder.image.model``. A few thousand pairs teach it what a genre
looks like, no more: see the recall that it prints, over films that it was not trained on.

With --unseen ITEMS (a Parquet file with ``image``, see `benchmarks.common.posters`) it is trained on the other films
alone: otherwise the vectors of posters that it was trained on remember the abstracts, which the items' own texts do
not have.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from benchmarks.common.posters import poster_of, read_posters
from PIL import Image
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Router, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import Tensor, nn
from torch.nn import functional
from transformers import ResNetConfig, ResNetModel, ViTImageProcessorPil
from transformers.utils import logging

from conrec.items.encoders.models import model_location
from conrec.progress import meter

__all__ = ["Pairs", "read_pairs", "recall", "train"]

WIDTH, HEIGHT = 64, 96
DIM = 128
MEAN = STD = 0.5


@dataclass(frozen=True, slots=True)
class Pairs:
    """Posters with what is written about the films.

    Attributes:
        movies: their ids.
        pixels: uint8 [n, 3, HEIGHT, WIDTH].
        text: float32 [n, 384], unit rows, the text tower's vectors before its linear layer.
    """

    movies: list[str]
    pixels: Tensor
    text: Tensor

    def take(self, rows: Tensor) -> Pairs:
        """Some of them."""
        return Pairs([self.movies[int(row)] for row in rows], self.pixels[rows], self.text[rows])


def read_pairs(folder: Path, encoder: SentenceTransformer) -> Pairs:
    """All posters of a folder (see `benchmarks.common.posters`), with title and abstract."""
    posters = read_posters(folder)
    abstracts = json.loads((folder / "abstracts.json").read_text(encoding="utf-8"))
    pixels, texts = [], []
    for movie, title in posters.items():
        path = poster_of(folder, movie)
        assert path is not None
        with Image.open(path) as opened:
            small = opened.convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
        pixels.append(torch.from_numpy(np.array(small)).permute(2, 0, 1))
        texts.append(f"{title}. {abstracts.get(movie, '')}"[:1000])
    text = encoder.encode(texts, batch_size=64, normalize_embeddings=True, show_progress_bar=False)
    return Pairs(list(posters), torch.stack(pixels), torch.from_numpy(text))


class Towers(nn.Module):
    """The two towers up to their linear layers, and the temperature."""

    def __init__(self, text_dim: int, temperature: float = 0.07) -> None:
        super().__init__()
        config = ResNetConfig(
            embedding_size=32, hidden_sizes=[32, 64, 128, 256], depths=[1, 1, 1, 1], layer_type="basic"
        )
        self.image = ResNetModel(config)
        self.image_head = nn.Linear(256, DIM, bias=False)
        self.text_head = nn.Linear(text_dim, DIM, bias=False)
        self.scale = nn.Parameter(torch.tensor(1 / temperature).log())

    def of_images(self, pixels: Tensor) -> Tensor:
        """Unit rows [n, DIM] of uint8 pixels."""
        x = (pixels.float() / 255 - MEAN) / STD
        found = self.image(x).last_hidden_state.mean((2, 3))
        return functional.normalize(self.image_head(found), dim=1)

    def of_texts(self, text: Tensor) -> Tensor:
        """Unit rows [n, DIM]."""
        return functional.normalize(self.text_head(text), dim=1)


def train(pairs: Pairs, epochs: int, seed: int = 0, batch: int = 128, learning_rate: float = 1e-3) -> Towers:
    """Train both towers' layers on all pairs; one thread or many, the caller says."""
    torch.manual_seed(seed)
    towers = Towers(pairs.text.shape[1])
    chance = torch.Generator().manual_seed(seed)
    steps = epochs * (len(pairs.movies) // batch)
    optimiser = torch.optim.AdamW(towers.parameters(), lr=learning_rate, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, total_steps=steps, pct_start=0.1)
    towers.train()
    with meter("training the small CLIP", epochs) as step:
        for _ in range(epochs):
            total = 0.0
            order = torch.randperm(len(pairs.movies), generator=chance)
            for rows in order[: len(order) // batch * batch].split(batch):
                image = towers.of_images(_changed(pairs.pixels[rows], chance))
                text = towers.of_texts(pairs.text[rows])
                logits = towers.scale.exp().clamp(max=100) * image @ text.T
                own = torch.arange(len(rows))
                loss = (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
                schedule.step()
                total += loss.item()
            step(note=f"loss {total / (len(order) // batch):.3f}")
    return towers.eval()


def _changed(pixels: Tensor, chance: torch.Generator) -> Tensor:
    """Posters mirrored, shifted, brighter or darker, at random."""
    n = len(pixels)
    flip = torch.rand(n, generator=chance) < 0.5
    x = torch.where(flip[:, None, None, None], pixels.flip(3), pixels).float()
    x = functional.pad(x, (6, 6, 6, 6), mode="replicate")
    top, left = torch.randint(0, 13, (2, n), generator=chance)
    x = torch.stack([x[i, :, top[i] : top[i] + HEIGHT, left[i] : left[i] + WIDTH] for i in range(n)])
    gain = 0.7 + 0.6 * torch.rand(n, 3, 1, 1, generator=chance)
    shift = 40 * (torch.rand(n, 1, 1, 1, generator=chance) - 0.5)
    return (x * gain + shift).clamp(0, 255)


@torch.no_grad()
def recall(towers: Towers, pairs: Pairs, k: int = 10) -> dict[str, float]:
    """Share of posters whose own text is among the k nearest texts, the same from texts, and what chance gives."""
    image = torch.cat([towers.of_images(part) for part in pairs.pixels.split(256)])
    text = towers.of_texts(pairs.text)
    own = torch.arange(len(image))[:, None]
    to_text = ((image @ text.T).topk(k).indices == own).any(1).float().mean()
    to_image = ((text @ image.T).topk(k).indices == own).any(1).float().mean()
    return {"image_to_text": float(to_text), "text_to_image": float(to_image), "chance": k / len(image)}


def save(towers: Towers, folder: Path, text_model: str = "all-MiniLM-L6-v2") -> None:
    """Write a folder that sentence-transformers loads; images and texts find their own tower."""
    start = folder / "start"
    towers.image.save_pretrained(start)
    size = {"height": HEIGHT, "width": WIDTH}
    ViTImageProcessorPil(size=size, image_mean=[MEAN] * 3, image_std=[STD] * 3).save_pretrained(start)
    looks = Transformer(str(start), model_kwargs={"use_safetensors": True}, processor_kwargs={"backend": "pil"})
    reads = SentenceTransformer(model_location(text_model), device="cpu")
    heads = []
    for head in (towers.image_head, towers.text_head):
        dense = Dense(head.in_features, DIM, bias=False, activation_function=nn.Identity())
        dense.linear.weight.data.copy_(head.weight.data)
        heads.append(dense)
    router = Router(
        {
            "text": [*reads.children(), heads[1], Normalize()],
            "image": [looks, Pooling(256, pooling_mode="mean"), heads[0], Normalize()],
        },
        default_route="text",
    )
    SentenceTransformer(modules=[router], device="cpu").save(str(folder))
    for path in start.iterdir():
        path.unlink()
    start.rmdir()


def main() -> None:
    """Train, say how well posters of held-out films find their texts, and save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("posters", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--unseen", type=Path, help="items whose posters it is not trained on")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--held-out", type=int, default=300)
    given = parser.parse_args()
    logging.disable_progress_bar()
    pairs = read_pairs(given.posters, SentenceTransformer(model_location("all-MiniLM-L6-v2"), device="cpu"))
    order = torch.randperm(len(pairs.movies), generator=torch.Generator().manual_seed(0))
    if given.unseen is not None:
        images = pq.read_table(given.unseen, columns=["image"])["image"].to_pylist()
        hidden = {Path(one).stem for one in images if one}
        seen = torch.tensor([movie not in hidden for movie in pairs.movies])
        order = torch.cat([order[~seen[order]], order[seen[order]]])
        train_rows, test_rows = order[len(hidden) :], order[: given.held_out]
    else:
        train_rows, test_rows = order[given.held_out :], order[: given.held_out]
    begin = time.perf_counter()
    towers = train(pairs.take(train_rows), given.epochs)
    seconds = time.perf_counter() - begin
    found = {"trained_on": len(train_rows), "held_out": len(test_rows), "seconds": round(seconds, 1)}
    found |= {f"recall@10_{name}": value for name, value in recall(towers, pairs.take(test_rows)).items()}
    save(towers, given.out)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
