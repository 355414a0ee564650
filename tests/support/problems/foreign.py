"""Networks of other packages, tiny, with random weights: nothing is downloaded. Skipped where a package is missing."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from problems.networks import padded
from problems.problem import Batch, Problem, ids, module


def foreign(name: str, needs: str, build: Callable[[Any], nn.Module], batch: Batch, **options: Any) -> Problem:
    """A network that `build` makes of the package `needs`."""
    return module(name, "network", lambda: build(import_module(needs)), batch, needs=needs, **options)


SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}


def bert(transformers: Any) -> nn.Module:
    return transformers.BertModel(transformers.BertConfig(vocab_size=17, max_position_embeddings=10, **SMALL))


def gpt2(transformers: Any) -> nn.Module:
    sizes = {"vocab_size": 19, "n_positions": 12, "n_embd": 16, "n_layer": 2, "n_head": 2}
    config = transformers.GPT2Config(**sizes, bos_token_id=0, eos_token_id=0, use_cache=False)
    return transformers.GPT2LMHeadModel(config)


def llama(transformers: Any) -> nn.Module:
    tokens = {"vocab_size": 15, "max_position_embeddings": 12, "bos_token_id": 0, "eos_token_id": 0}
    config = transformers.LlamaConfig(num_key_value_heads=1, use_cache=False, **tokens, **SMALL)
    return transformers.LlamaForCausalLM(config)


def bloom(transformers: Any) -> nn.Module:
    sizes = {"vocab_size": 15, "hidden_size": 16, "n_layer": 2, "n_head": 2}
    return transformers.BloomForCausalLM(transformers.BloomConfig(use_cache=False, **sizes))


def t5(transformers: Any) -> nn.Module:
    sizes = {"vocab_size": 15, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2}
    return transformers.T5EncoderModel(transformers.T5Config(**sizes))


def vit(transformers: Any) -> nn.Module:
    config = transformers.ViTConfig(image_size=16, patch_size=8, num_labels=5, **SMALL)
    return transformers.ViTForImageClassification(config)


def timm_resnet(timm: Any) -> nn.Module:
    return timm.create_model("resnet10t", pretrained=False, num_classes=5)


def timm_vit(timm: Any) -> nn.Module:
    sizes = {"img_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "init_values": 0.1}
    return timm.models.VisionTransformer(**sizes, num_classes=5)


def texts() -> dict[str, Tensor]:
    """Token ids with a mask of the padded ones."""
    tokens = ids(15, 3, 7)()
    return {"input_ids": tokens, "attention_mask": (torch.arange(7) < torch.tensor([[7], [4], [6]])).long()}


def packed() -> dict[str, Tensor]:
    """Five documents in two rows, as trainers of language models pack them."""
    positions = torch.tensor([[0, 1, 2, 0, 1, 2, 3], [0, 1, 0, 1, 2, 3, 4]])
    return {"input_ids": ids(15, 2, 7)(), "position_ids": positions}


FOREIGN = [
    foreign("transformers: BERT on padded texts", "transformers", bert, padded),
    foreign("transformers: GPT-2", "transformers", gpt2, texts),
    foreign("transformers: Llama", "transformers", llama, texts, half_exact=True),
    foreign("transformers: GPT-2 on packed documents", "transformers", gpt2, packed),
    foreign("transformers: BLOOM", "transformers", bloom, texts),
    foreign("transformers: T5's encoder", "transformers", t5, texts),
    foreign("transformers: ViT", "transformers", vit, (3, 3, 16, 16)),
    foreign("timm: ResNet-10-T", "timm", timm_resnet, (3, 3, 32, 32)),
    foreign("timm: ViT with LayerScale", "timm", timm_vit, (3, 3, 16, 16)),
]
