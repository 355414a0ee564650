"""A small language model learns Python code and keeps its English: python tutorials/keep_a_language_model.py."""

# %% [markdown]
# # Keep a language model's skills with the Trainer
#
# A language model that has read English documentation is to learn Python code. With `transformers.Trainer` the
# protection is one argument: `callbacks=[ForgetlessCallback(old_rows)]`.
#
# So that it runs in seconds, the model is tiny and reads bytes. Both texts come with Python: the language reference as
# `pydoc` shows it, and the source code of `argparse`. The measure is *bits per byte* on held-out text, the
# cross-entropy to base 2: smaller is better, and no knowledge at all gives 7 (for 128 possible bytes).

# %%
import argparse
import copy
import inspect
import math
import tempfile
from collections.abc import Sequence
from pydoc_data import topics

import matplotlib.pyplot as plt
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PrinterCallback,
    Trainer,
    TrainingArguments,
)
from transformers import default_data_collator as collate

from forgetless import HoldShare
from forgetless.integrations.transformers import ForgetlessCallback

LENGTH = 96


def rows(text: str) -> list[dict[str, torch.Tensor]]:
    """The text in rows of 96 bytes, in a random order."""
    data = torch.frombuffer(
        bytearray(text.encode("ascii", "ignore")), dtype=torch.uint8
    ).long()
    pieces = data[: len(data) // LENGTH * LENGTH].view(-1, LENGTH)
    pieces = pieces[
        torch.randperm(len(pieces), generator=torch.Generator().manual_seed(0))
    ]
    return [{"input_ids": piece, "labels": piece} for piece in pieces]


english, code = (
    rows("\n".join(topics.topics.values())),
    rows(inspect.getsource(argparse)),
)
english_test, english, code_test, code = (
    english[:100],
    english[100:],
    code[:100],
    code[100:],
)
print(
    f"{len(english)} rows of English, {len(code)} rows of code, 100 of each held out"
)


def train(
    model: LlamaForCausalLM,
    data: list,
    steps: int,
    rate: float,
    callbacks: Sequence[ForgetlessCallback] = (),
) -> Trainer:
    """`transformers.Trainer`, as always."""
    arguments = TrainingArguments(
        tempfile.mkdtemp(),
        max_steps=steps,
        per_device_train_batch_size=16,
        learning_rate=rate,
        logging_steps=10,
        report_to=[],
        disable_tqdm=True,
        save_strategy="no",
        use_cpu=True,
    )
    trainer = Trainer(
        model, arguments, collate, data, callbacks=list(callbacks)
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return trainer


@torch.no_grad()
def bits(model: LlamaForCausalLM, data: list) -> float:
    """Bits per byte."""
    return float(model.eval()(**collate(data)).loss) / math.log(2)


# %% [markdown]
# ## The model that is there already

# %%
torch.manual_seed(0)
sizes = {
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
trained = LlamaForCausalLM(LlamaConfig(vocab_size=128, **sizes))
train(trained, english, 300, 4e-3)
print(
    f"English {bits(trained, english_test):.2f}, code {bits(trained, code_test):.2f} bits per byte"
)

# %% [markdown]
# ## It learns code, in three ways
#
# Without protection; with the callback's default, which holds back most of the movement that training would make;
# and with a stronger setting. The callback measures on 200 rows of English before the first step. `probes` are 32 more rows: the
# share of their next bytes that the model still predicts alike is logged as `forgetless/agreement`.
# None of the rows needs labels.

# %%
STEPS = 80
old_rows = [{"input_ids": row["input_ids"]} for row in english[:200]]
probes = [{"input_ids": row["input_ids"]} for row in english_test[:32]]
SETTINGS = {
    "plain fine-tuning": None,
    "with forgetless": "auto",
    "90 % held back": HoldShare(0.9),
}
found, logs = {}, {}
for name, strength in SETTINGS.items():
    callbacks = (
        []
        if strength is None
        else [ForgetlessCallback(old_rows, strength, probes=probes)]
    )
    model = copy.deepcopy(trained)
    logs[name] = train(model, code, STEPS, 1e-3, callbacks).state.log_history
    found[name] = bits(model, english_test), bits(model, code_test)
    print(
        f"{name:>17}: English {found[name][0]:.2f}, code {found[name][1]:.2f} bits per byte"
    )

# %% [markdown]
# ## What the callback logs
#
# The figures are part of the trainer's own log, so TensorBoard, Weights & Biases and every other reporter show them
# under the same keys.

# %%
for key, value in logs["with forgetless"][0].items():
    print(f"{key:>26}  {value:.3g}")

# %% [draw]
figure, axes = plt.subplots(
    1,
    2,
    figsize=(7, 2.6),
    num="Agreement with the old predictions, and loss, during training",
)
for name, log in logs.items():
    log = [each for each in log if "loss" in each]
    axes[0].plot(
        [each["step"] for each in log],
        [each.get("forgetless/agreement", math.nan) for each in log],
        label=name,
    )
    axes[1].plot(
        [each["step"] for each in log],
        [each["loss"] for each in log],
        label=name,
    )
axes[0].set(xlabel="step", ylabel="forgetless/agreement")
axes[1].set(xlabel="step", ylabel="training loss (code)")
axes[1].legend(frameon=False, fontsize=8)

# %% [check]
before, plain, held, firm = (
    bits(trained, english_test),
    *(english for english, _ in found.values()),
)
assert before < firm < held < plain
assert found["plain fine-tuning"][1] < found["90 % held back"][1]
assert found["90 % held back"][1] < bits(trained, code_test)

# %% [markdown]
# ## What the numbers mean, and where it does not help
#
# - Fine-tuning on code costs English. The more is held back, the more of the English stays, and the less code is
#   learned: this is a trade, and the strength chooses the point ([which strength?](which_strength.py)).
# - The model learns from scratch how code looks and has few weights to spare, so it cannot have both. Large pretrained
#   models have more room ([language models](../docs/language-models.md), [repair](../docs/repair.md)).
# - Where old texts may be used in training, mixing some of them in is the simplest protection. The callback is for the
#   case in which they may not, or not for long: it reads them once, before the first step.
# - One seed, a byte model of 100,000 weights: take the directions from here, not the sizes.
