"""Folders as `save_pretrained` writes them, of tiny random models, and data that they can learn; made on the spot."""

from __future__ import annotations

import csv
from pathlib import Path

import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    PreTrainedModel,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

from tiny_language import WORDS, language_model, tokenizer

_BERT = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
CLASSES = ("x", "y", "z")


def language_folder(path: Path) -> PreTrainedModel:
    """A causal language model with its tokenizer."""
    model = language_model()
    model.save_pretrained(path)
    tokenizer().save_pretrained(path)
    return model


def classifier_folder(path: Path) -> PreTrainedModel:
    """A classifier of texts into x, y and z, with its tokenizer."""
    torch.manual_seed(0)
    names = dict(enumerate(CLASSES))
    config = BertConfig(**_BERT, id2label=names, label2id={name: number for number, name in names.items()})
    model = BertForSequenceClassification(config).eval()
    model.save_pretrained(path)
    tokenizer().save_pretrained(path)
    return model


def encoder_folder(path: Path) -> PreTrainedModel:
    """An encoder of texts without a head, with its tokenizer."""
    torch.manual_seed(0)
    model = BertModel(BertConfig(**_BERT)).eval()
    model.save_pretrained(path)
    tokenizer().save_pretrained(path)
    return model


def vision_folder(path: Path) -> PreTrainedModel:
    """A classifier of pictures of 16 × 16 pixels into three classes without names, with its image processor."""
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
        num_labels=3,
    )
    model = ViTForImageClassification(config).eval()
    model.save_pretrained(path)
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(path)
    return model


def labeled_texts(path: Path, labels: tuple[str, ...], number: int, seed: int, *, field: str = "label") -> Path:
    """A CSV file of sentences, each of the words of its class."""
    draw = torch.Generator().manual_seed(seed)
    width = len(WORDS) // len(labels)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", field])
        for row in range(number):
            mine = row % len(labels)
            words = torch.randint(mine * width, (mine + 1) * width, (5,), generator=draw).tolist()
            writer.writerow([" ".join(WORDS[word] for word in words), labels[mine]])
    return path


def half_texts(number: int, half: int, seed: int) -> list[str]:
    """Sentences of the first half of the words, or of the second."""
    draw = torch.Generator().manual_seed(seed)
    words = WORDS[:14] if half == 0 else WORDS[14:]
    return [" ".join(words[k] for k in torch.randint(14, (8,), generator=draw).tolist()) for _ in range(number)]


def pictures(path: Path, classes: tuple[str, ...], each: int, seed: int = 0) -> Path:
    """A folder per class of 16 × 16 pictures, of a color of the class's own with noise."""
    from PIL import Image

    draw = torch.Generator().manual_seed(seed)
    for number, name in enumerate(classes):
        (path / name).mkdir(parents=True)
        for picture in range(each):
            pixels = torch.randint(0, 60, (16, 16, 3), generator=draw, dtype=torch.uint8)
            pixels[..., number % 3] += 150
            Image.fromarray(pixels.numpy()).save(path / name / f"{picture}.png")
    return path
