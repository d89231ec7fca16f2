"""Small models with drawn weights that read images and texts, and pictures to read, all made on the spot."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BlipConfig,
    BlipImageProcessorPil,
    BlipModel,
    BlipProcessor,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPProcessor,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
    SiglipProcessor,
    ViTConfig,
    ViTImageProcessorPil,
    ViTModel,
)

WORDS = ["a red square on white", "a blue disc on black", "some green lines", "http://images/of/nothing.png"]
SIDE = 32
_SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
_SIZE = {"height": SIDE, "width": SIDE}


def write_model(kind: str, folder: Path) -> Path:
    """A model folder that sentence-transformers loads: kind "clip" or "siglip", "blip",
    which also reads an image with its text, or "vit", which reads no text."""
    torch.manual_seed(0)
    vision = {**_SMALL, "image_size": SIDE, "patch_size": 8}
    if kind == "vit":
        ViTModel(ViTConfig(**vision)).save_pretrained(folder)
        ViTImageProcessorPil(size=_SIZE).save_pretrained(folder)
        return folder
    tokenizer = _tokenizer()
    ends = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    text = {**_SMALL, **ends, "vocab_size": len(tokenizer), "max_position_embeddings": 16}
    if kind == "clip":
        model: Any = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))
        processor: Any = CLIPProcessor(CLIPImageProcessorPil(size=_SIZE, do_center_crop=False), tokenizer)
    elif kind == "blip":
        text |= {"encoder_hidden_size": 16, "projection_dim": 8, "sep_token_id": 3}
        model = BlipModel(BlipConfig(text_config=text, vision_config=vision, projection_dim=8))
        processor = BlipProcessor(BlipImageProcessorPil(size=_SIZE), tokenizer)
    else:
        model = SiglipModel(SiglipConfig(text_config=text, vision_config=vision))
        processor = SiglipProcessor(SiglipImageProcessorPil(size=_SIZE), tokenizer)
    with torch.no_grad():
        # A gap to be closed: drawn towers have none of note.
        for name, value in model.named_parameters():
            if name.startswith("vision_model") and name.endswith("layernorm.bias"):
                value.add_(1.0)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[BOS]", "[EOS]"]
    trainer = trainers.WordPieceTrainer(vocab_size=120, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(WORDS * 4, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[BOS] $A [EOS]", special_tokens=[("[BOS]", 2), ("[EOS]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        bos_token="[BOS]",
        eos_token="[EOS]",
        model_max_length=16,
    )


def picture(number: int, size: tuple[int, int] = (40, 60)) -> Image.Image:
    """A drawing of shapes and noise, different for every number."""
    chance = np.random.default_rng(number)
    image = Image.fromarray(chance.integers(0, 80, (size[1], size[0], 3), dtype=np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(4):
        x, y = sorted(chance.integers(0, size[0], 2).tolist()), sorted(chance.integers(0, size[1], 2).tolist())
        draw.rectangle((x[0], y[0], x[1], y[1]), fill=tuple(chance.integers(0, 256, 3).tolist()))
    return image


def file_of(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """The image as a file of that format."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
