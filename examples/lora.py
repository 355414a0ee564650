"""LoRA on a small language model that already knows something: with and without the two lines.

    python examples/lora.py          (pip install '.[peft]')

The model knows a first language, of which some texts are used to measure what matters, and learns a second one.
"""

import copy

import peft
import torch
import transformers

import forgetless
from forgetless.integrations.peft import DeltaAnchor

WORDS, LENGTH = 24, 10
SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}


def texts(language: int, count: int) -> torch.Tensor:
    """A mark of the language, a random word, and what follows from it: `x → 5 x + 1` or `x → 7 x + 5` modulo 24."""
    factor, shift = ((5, 1), (7, 5))[language]
    words = [torch.full((count,), WORDS + language), torch.randint(WORDS, (count,))]
    while len(words) < LENGTH:
        words.append((factor * words[-1] + shift) % WORDS)
    return torch.stack(words, 1)


def train(model: torch.nn.Module, language: int, optimizer: torch.optim.Optimizer, steps: int) -> None:
    """Any loop: nothing in it knows of forgetless."""
    for _ in range(steps):
        batch = texts(language, 16)
        optimizer.zero_grad()
        model(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()


@torch.no_grad()
def accuracy(model: torch.nn.Module, language: int) -> float:
    """How often the next word is right, in percent."""
    batch = texts(language, 200)
    return 100 * float((model(input_ids=batch).logits.argmax(-1)[:, 1:-1] == batch[:, 2:]).float().mean())


torch.manual_seed(0)
learned = transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=WORDS + 2, **SIZES))
train(learned, 0, torch.optim.AdamW(learned.parameters(), lr=5e-3), steps=150)
before = accuracy(learned, 0)

for protected in (False, True):
    torch.manual_seed(1)
    model = peft.get_peft_model(copy.deepcopy(learned), peft.LoraConfig(target_modules="all-linear", r=8))
    optimizer = torch.optim.AdamW((each for each in model.parameters() if each.requires_grad), lr=5e-3)
    if protected:
        importance = forgetless.mas(learned, {"input_ids": texts(0, 200)})
        DeltaAnchor(model, importance, strength=0.2).attach(optimizer)
    train(model, 1, optimizer, steps=200)
    print("with forgetless:" if protected else "plain LoRA:", end=" ")
    print(f"first {before:.1f} % → {accuracy(model, 0):.1f} %, second {accuracy(model, 1):.1f} %")
