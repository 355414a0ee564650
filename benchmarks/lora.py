"""What protecting the base costs a LoRA step: with `DeltaAnchor` ÷ plain, interleaved in one run.

    OMP_NUM_THREADS=1 python benchmarks/lora.py --clock cpu   # writes benchmarks/results/lora.json
    python benchmarks/lora.py --render                        # rewrites the table in docs/lora.md

A step is forward, backward and `optimizer.step()` of AdamW on the adapters of a Llama of two layers, 512 wide (all its
linear layers are adapted). The rows take turns, in an order that is drawn anew each round; a ratio is the median over
rounds of a row's time ÷ plain's of the same round. *Memory* is what a step of the optimizer holds at most beside what
is there before it, less plain's, in sizes of the largest adapted weight.

Measuring Ω of a base in 4 bits (bitsandbytes) is compared with measuring the float network in the same way: in one pass
through the data, and in as many as there are layers. Its memory is in sizes of all adapted weights in float.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import time
import warnings
import weakref
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from forgetless import Importance
from forgetless.integrations.peft import DeltaAnchor, base_importance

ROOT = Path(__file__).parents[1]
RESULTS, PAGE = ROOT / "benchmarks" / "results" / "lora.json", ROOT / "docs" / "lora.md"
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
CASES = [(8, 512), (8, 2048), (16, 2048), (32, 2048)]  # rank, tokens in a step
ROWS = ("plain", "pull", "gradient")
WIDTH, LAYERS, LENGTH = 512, 2, 128


class Live(TorchDispatchMode):
    """The most bytes of new tensors that were alive at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and note what it made."""
        found = func(*args, **(kwargs or {}))
        given = {each.untyped_storage().data_ptr() for each in tree_leaves(args) if isinstance(each, Tensor)}
        for each in tree_leaves(found):
            if isinstance(each, Tensor) and (place := each.untyped_storage().data_ptr()) not in given | self.known:
                size = each.untyped_storage().nbytes()
                self.known.add(place)
                self.now += size
                self.peak = max(self.peak, self.now)
                weakref.finalize(each.untyped_storage(), self._gone, place, size)
        return found

    def _gone(self, place: int, size: int) -> None:
        self.known.discard(place)
        self.now -= size


class Row:
    """One model in training."""

    def __init__(self, name: str, rank: int, tokens: int) -> None:
        torch.manual_seed(0)
        sizes = {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_hidden_layers": LAYERS}
        config = transformers.LlamaConfig(vocab_size=1000, num_attention_heads=8, **sizes)
        adapters = peft.LoraConfig(target_modules="all-linear", r=rank)
        self.model: nn.Module = peft.get_peft_model(transformers.LlamaForCausalLM(config), adapters)
        trained = [each for each in self.model.parameters() if each.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=1e-4)
        self.batch = torch.randint(1000, (tokens // LENGTH, LENGTH))
        if name != "plain":
            DeltaAnchor(self.model, ones(self.model), 1e-3).attach(self.optimizer, how=name)

    def step(self) -> None:
        """What is measured."""
        self.optimizer.zero_grad()
        self.model(input_ids=self.batch, labels=self.batch).loss.backward()
        self.optimizer.step()

    def held(self) -> int:
        """The most bytes that a step of the optimizer holds."""
        with Live() as live:
            self.optimizer.step()
        return live.peak


def ones(model: nn.Module) -> Importance:
    """An importance of 1 everywhere: what it is makes no difference to the time."""
    layers = {n: each for n, each in model.named_modules() if isinstance(each, peft.tuners.lora.Linear)}
    clean = {n.removeprefix("base_model.model."): each.get_base_layer().weight for n, each in layers.items()}
    return Importance({f"{name}.weight": torch.ones_like(each) for name, each in clean.items()}, 1)


def measured(rank: int, tokens: int, rounds: int, clock: str) -> dict[str, Any]:
    """One case."""
    rows = {name: Row(name, rank, tokens) for name in ROWS}
    times: dict[str, list[float]] = {name: [] for name in ROWS}
    for number in range(rounds + 1):
        for name in random.sample(ROWS, len(ROWS)):
            start = CLOCKS[clock]()
            rows[name].step()
            if number:  # the first round warms up
                times[name].append(CLOCKS[clock]() - start)
    ratio = {
        name: statistics.median(a / b for a, b in zip(times[name], times["plain"], strict=True)) for name in ROWS[1:]
    }
    largest = 4 * 4 * WIDTH**2
    held = {name: row.held() for name, row in rows.items()}
    memory = {name: (held[name] - held["plain"]) / largest for name in ROWS[1:]}
    plain = 1000 * statistics.median(times["plain"])
    return {"rank": rank, "tokens": tokens, "plain_ms": plain, "ratio": ratio, "memory": memory}


def base(packed: bool) -> Any:
    """The model with fresh adapters, its base in 4 bits or not."""
    import bitsandbytes as bnb

    model = Row("plain", 8, LENGTH).model
    for layer in [each for each in model.modules() if packed and isinstance(each, peft.tuners.lora.Linear)]:
        plain: Any = layer.base_layer
        small: Any = bnb.nn.Linear4bit(
            plain.in_features, plain.out_features, bias=False, compute_dtype=torch.float32, quant_type="nf4"
        )
        small.weight = bnb.nn.Params4bit(plain.weight.data, requires_grad=False, quant_type="nf4", module=small)
        layer.base_layer = small.to("cpu")  # quantizes
    return model.eval()


def quantized(rounds: int, clock: str) -> list[dict[str, Any]]:
    """The same measurement of the base in float and in 4 bits, in one pass and layer by layer."""
    data = [{"input_ids": torch.randint(1000, (4, LENGTH))} for _ in range(2)]
    float_bytes = 4 * sum(each.numel() for each in ones(base(False)).sums.values())
    rows: dict[str, tuple[Any, dict[str, int]]] = {"float": (base(False), {}), "4 bits, one pass": (base(True), {})}
    rows["4 bits, layer by layer"] = (base(True), {"at_once": 1})
    times: dict[str, list[float]] = {name: [] for name in rows}
    peaks = {}
    for number in range(rounds + 1):
        for name in random.sample(list(rows), len(rows)):
            model, options = rows[name]
            start = CLOCKS[clock]()
            base_importance(model, data, progress=False, **options)
            if number:
                times[name].append(CLOCKS[clock]() - start)
    for name, (model, options) in rows.items():
        with Live() as live:
            base_importance(model, data, progress=False, **options)
        peaks[name] = live.peak / float_bytes
    ratio = {n: statistics.median(a / b for a, b in zip(t, times["float"], strict=True)) for n, t in times.items()}
    return [{"base": name, "ratio": ratio[name], "memory": peaks[name]} for name in rows]


def table(found: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = ["| rank | tokens a step | pull | gradient | memory: pull | gradient |", "|---|---|---|---|---|---|"]
    for run in found["runs"]:
        cells = [f"{run['ratio'][name]:.2f} ×" for name in ROWS[1:]] + [
            f"{run['memory'][name]:.2f}" for name in ROWS[1:]
        ]
        lines.append(f"| {run['rank']} | {run['tokens']:,} | {' | '.join(cells)} |")
    lines += ["", "| base | time of measuring Ω | new tensors at once |", "|---|---|---|"]
    lines += [f"| {each['base']} | {each['ratio']:.2f} × | {each['memory']:.2f} |" for each in found["quantized"]]
    place = found["environment"]
    return "\n".join(
        [
            *lines,
            "",
            f"{place['cpu']}, one thread, clock: {place['clock']}; torch {place['torch']}, PEFT {place['peft']}.",
        ]
    )


def main() -> None:
    """The command."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--rounds", type=int, default=5)
    words.add_argument(
        "--clock", choices=CLOCKS, default="wall", help="cpu: on a machine that does other things as well"
    )
    words.add_argument("--render", action="store_true")
    given = words.parse_args()
    if not given.render:
        warnings.simplefilter("ignore")
        torch.set_num_threads(1)
        place = {"cpu": cpu(), "clock": given.clock, "torch": torch.__version__, "peft": peft.__version__}
        runs = [measured(rank, tokens, given.rounds, given.clock) for rank, tokens in CASES]
        found = {"environment": place, "runs": runs, "quantized": quantized(min(3, given.rounds), given.clock)}
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    begin, end = "<!-- lora cost: begin -->\n", "<!-- lora cost: end -->"
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(begin)
    made = table(json.loads(RESULTS.read_text(encoding="utf-8")))
    PAGE.write_text(before + begin + made + "\n" + end + rest.partition(end)[2], encoding="utf-8")


def cpu() -> str:
    """What the processor is called."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "a CPU")


if __name__ == "__main__":
    main()
