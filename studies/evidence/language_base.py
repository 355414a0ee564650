"""A small language model of general English, made from nothing, as a folder that transformers loads.

    python -m studies.evidence.language_base --data DATA --texts TEXTS --out WORK/small

`studies.evidence.language_texts` says where DATA and TEXTS are from. It has the architecture of Llama, 11.2 M
weights and a vocabulary of 4,096 of its own. A run that was stopped continues after its last 100 steps.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from forgetless.learn.seeding import derive, permutation
from studies.evidence.language_texts import general, learned, windows
from studies.repair_measures import logits

VOCABULARY, WIDTH, LAYERS, HEADS, INNER = 4096, 320, 8, 5, 864
STEPS, BATCH, RATE, WARM, DECAY, SAVED = 1500, 16, 1.5e-3, 75, 0.1, 100


def vocabulary(text: str) -> Any:
    """A tokenizer of byte pairs, trained on the text."""
    import tokenizers
    import transformers

    made = tokenizers.ByteLevelBPETokenizer()
    made.train_from_iterator(text.splitlines(keepends=True), VOCABULARY, special_tokens=["<end>"], show_progress=False)
    wrapper: Any = transformers.PreTrainedTokenizerFast
    return wrapper(tokenizer_object=made._tokenizer, eos_token="<end>", pad_token="<end>")


def network(seed: int) -> Any:
    """The model with random weights."""
    import transformers

    torch.manual_seed(seed)
    llama: Any = transformers.LlamaConfig
    config = llama(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        attn_implementation="eager",  # on a CPU, at this length, faster than the fused kernel
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    return transformers.LlamaForCausalLM(config)


def made(data: Path, texts: Path, out: Path, seed: int = 0) -> None:
    """Train the model and save it; the rows come in a new order in every pass."""
    text = "\n\n".join(map(learned, general(data, texts).values()))
    tokenizer = vocabulary(text)
    rows, model = windows(tokenizer, text), network(derive(seed, "weights"))
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=DECAY, betas=(0.9, 0.95), fused=True)
    partly, begun = out.with_name(f".{out.name}.pt"), 0
    if partly.exists():
        kept = torch.load(partly, weights_only=True)
        model.load_state_dict(kept["model"])
        optimizer.load_state_dict(kept["optimizer"])
        begun = kept["steps"]
    a_pass, started = len(rows) // BATCH, time.monotonic()
    for step in range(begun, STEPS):
        order = permutation(len(rows), derive(seed, "order", step // a_pass))
        place = step % a_pass * BATCH
        for group in optimizer.param_groups:
            group["lr"] = RATE * min((step + 1) / WARM, 0.55 + 0.45 * math.cos(math.pi * step / STEPS))
        found, wanted = logits(model, rows.taken(order[place : place + BATCH]))
        loss = F.cross_entropy(found, wanted)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % SAVED == SAVED - 1:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "steps": step + 1}
            torch.save(state, partly.with_suffix(".new"))
            partly.with_suffix(".new").replace(partly)
            print(f"step {step + 1} of {STEPS}: loss {loss:.3f}, {time.monotonic() - started:.0f} s", flush=True)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    partly.unlink(missing_ok=True)


def main(words: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m studies.evidence.language_base", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder of texts")
    parser.add_argument("--texts", type=Path, required=True, help="the folder of texts from packages")
    parser.add_argument("--out", type=Path, required=True, help="the model's folder")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    options = parser.parse_args(words)
    torch.set_num_threads(options.threads)
    made(options.data, options.texts, options.out)


if __name__ == "__main__":
    main()
