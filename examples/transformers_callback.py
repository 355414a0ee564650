"""transformers.Trainer, with and without the one argument: a language model that knows English learns Latin.

    python examples/transformers_callback.py          (pip install '.[transformers]' in the clone)

A tiny model of characters. TRL's SFTTrainer takes the same callback. The smaller the perplexity, the better.
"""

import copy
import math
import tempfile

import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import DataCollatorForLanguageModeling as Collator
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Trainer, TrainingArguments

from forgetless import HoldShare
from forgetless.integrations.transformers import ForgetlessCallback

ENGLISH = """a bird in the hand is worth two in the bush|a stitch in time saves nine|all that glitters is not gold
actions speak louder than words|better late than never|every cloud has a silver lining|haste makes waste
honesty is the best policy|the early bird catches the worm|when in rome do as the romans do|no pain no gain
the pen is mightier than the sword|two wrongs do not make a right|practice makes perfect|look before you leap"""
LATIN = """alea iacta est|audentes fortuna iuvat|carpe diem quam minimum credula postero|cogito ergo sum
dum spiro spero|errare humanum est sed perseverare diabolicum|festina lente|gutta cavat lapidem|homo homini lupus
in vino veritas|labor omnia vincit|memento mori|non scholae sed vitae discimus|per aspera ad astra|veni vidi vici"""
old, new = (texts.replace("\n", "|").split("|") for texts in (ENGLISH, LATIN))

letters = {letter: number for number, letter in enumerate(["<pad>", "<unk>", *sorted(set("".join(old + new)))])}
made = Tokenizer(models.WordLevel(letters, unk_token="<unk>"))
made.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", unk_token="<unk>")
QUIET = {"report_to": [], "disable_tqdm": True, "save_strategy": "no", "logging_strategy": "no"}
collator = Collator(tokenizer, mlm=False)


def train(model: LlamaForCausalLM, texts: list[str], steps: int, **more) -> LlamaForCausalLM:
    settings = {"max_steps": steps, "per_device_train_batch_size": 8, "learning_rate": 2e-3, "use_cpu": True}
    arguments = TrainingArguments(tempfile.mkdtemp(), **settings, **QUIET)
    rows = [dict(tokenizer(text)) for text in texts]
    Trainer(model, arguments, collator, rows, processing_class=tokenizer, **more).train()
    return model.eval()


def perplexity(model: LlamaForCausalLM, texts: list[str]) -> float:
    with torch.no_grad():
        return math.exp(model(**collator([dict(tokenizer(text)) for text in texts])).loss)


torch.manual_seed(0)
sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
model = train(LlamaForCausalLM(LlamaConfig(vocab_size=len(letters), pad_token_id=0, **sizes)), old, 200)
print(f"{'before':>17}: English {perplexity(model, old):.2f}, Latin {perplexity(model, new):.2f}")
strengths = {"plain fine-tuning": None, "with forgetless": "auto", "held at 90 %": HoldShare(0.9)}
for name, strength in strengths.items():
    callbacks = [] if strength is None else [ForgetlessCallback(old, strength)]
    tuned = train(copy.deepcopy(model), new, 30, callbacks=callbacks)
    print(f"{name:>17}: English {perplexity(tuned, old):.2f}, Latin {perplexity(tuned, new):.2f}")
