"""`forgetless run long-text`: every variant with every seed, trained and tested on one text, into a run directory."""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.files.lock import locked
from forgetless.lab.long_text import evaluation
from forgetless.lab.long_text.directory import TextDirectory
from forgetless.lab.long_text.kept import write_network
from forgetless.lab.long_text.reading import Tokens
from forgetless.lab.long_text.recipes import Recipe
from forgetless.lab.long_text.results import table
from forgetless.lab.long_text.training import train
from forgetless.lab.long_text.variants import longer, sized
from forgetless.lab.long_text.vocabularies import Vocabulary
from forgetless.lab.networks.compressive import CompressiveTransformer, Sizes
from forgetless.lab.running.directory import key
from forgetless.lab.running.environment import environment
from forgetless.lab.running.experiment import Comparison
from forgetless.lab.running.jobs import Job, Runner, Tell
from forgetless.lab.running.plan import distinct
from forgetless.learn.position import Progress


@dataclass(frozen=True)
class Evaluation:
    """How a trained network is tested.

    Attributes:
        rows: pieces of the held-out text that are read side by side.
        limit: tokens to read at most; None for all.
        memory: recent positions that are kept in the test with longer memories, …
        compressed: … and compressed memories.
    """

    rows: int
    limit: int | None
    memory: int
    compressed: int


@dataclass(frozen=True)
class TextComparison(Comparison):
    """Variants of a language model on one corpus.

    Attributes:
        corpus: its name.
        texts: "train", "validation" and "test" → tokens.
        words: part → how many words it has, where perplexity by word is a measure of this corpus.
        training_words: how often each word occurs in the training text.
        vocabulary: what the tokens are.
        sizes: of the Compressive Transformer; the other variants' follow from them.
        recipe: how they learn.
        evaluation: how they are tested.
        config: what else defines the experiment, JSON-able.
        arguments: the words after `forgetless run NAME` that give it.
        methods: the variants to compare by default.
    """

    corpus: str
    texts: Mapping[str, Tokens]
    words: Mapping[str, int]
    training_words: Mapping[bytes, int]
    vocabulary: Vocabulary
    sizes: Sizes
    recipe: Recipe
    evaluation: Evaluation
    config: Mapping[str, Any]
    arguments: Sequence[str]
    methods: Sequence[str]
    name: str = "long-text"

    def run(
        self,
        names: Sequence[str] | None,
        seeds: Sequence[int],
        out: Path,
        *,
        resume: bool,
        runner: Runner,
        on_plan: Callable[[Sequence[Job]], None] = lambda jobs: None,
        on_progress: Callable[[Job, Progress], None] = lambda job, progress: None,
    ) -> dict[str, Any]:
        """See `Comparison.run`."""
        works = {"": functools.partial(learn_job, self, out)}
        if not runner.leads:
            runner.serve(works)
            return {}
        planned = [
            (name, seed) for seed in distinct(seeds, "seed") for name in distinct(names or self.methods, "method")
        ]
        with locked(out):
            files.tidied(out)
            empty = {"experiment": self.name, "corpus": self.corpus, "environment": {}, "runs": []}
            directory = TextDirectory(out, self._config(), empty)
            done = {key(run)[:2] for run in directory.results["runs"]}
            jobs = [Job("", name, seed, 0) for name, seed in planned if (name, seed) not in done]
            if jobs and directory.started and not resume:
                raise ForgetlessError(
                    f"{out} is unfinished: {len(planned) - len(jobs)} of {len(planned)} runs are done; "
                    "add --resume to continue it, or choose another --out."
                )
            if jobs:
                directory.start(
                    {**environment(), "threads": runner.threads, "command": self._command(directory, planned)}
                )
                directory.log("start", runs=[[job.method, job.seed, job.order] for job in jobs])
            on_plan(jobs)
            phases: dict[Job, str] = {}

            def tell(job: Job, progress: Progress) -> None:
                if phases.get(job) != progress.phase:
                    phases[job] = progress.phase
                    where = {"method": job.method, "seed": job.seed, "order": job.order, "task": progress.name}
                    directory.log(progress.phase, **where, epoch=progress.epoch, loss=None)
                on_progress(job, progress)

            for _, found in runner.run(works if jobs else {}, jobs, tell):
                directory.add(found)
                directory.log("done", **{name: found[name] for name in ("method", "seed", "bits")})
            return directory.results

    def table(self, results: Mapping[str, Any]) -> str:
        """See `Comparison.table`."""
        return table(results)

    def _config(self) -> dict[str, Any]:
        texts = {part: files.sha256(text.tokens)[:16] for part, text in self.texts.items()}
        sizes, recipe = dataclasses.asdict(self.sizes), dataclasses.asdict(self.recipe)
        evaluated = dataclasses.asdict(self.evaluation)
        defined = {"experiment": self.name, "corpus": self.corpus, "texts": texts, "sizes": sizes, "recipe": recipe}
        return {**defined, "evaluation": evaluated, **self.config}

    def _command(self, directory: TextDirectory, planned: Sequence[tuple[str, int]]) -> str:
        runs = [key(run)[:2] for run in directory.results["runs"]]
        names, seeds = zip(*runs, *planned, strict=True)
        chosen = [word for name in dict.fromkeys(names) for word in ("--method", name)]
        span = ["--seed", str(min(seeds)), "--seeds", str(max(seeds) - min(seeds) + 1)]
        return " ".join(["forgetless run", self.name, *self.arguments, *chosen, *span, "--out", f"runs/{self.name}"])


def learn_job(experiment: TextComparison, out: Path, job: Job, tell: Tell) -> dict[str, Any]:
    """Train one variant with one seed, and test it.

    Returns:
        Its entry in `results.json`: `bits` by part and memory, and where they come from.
    """
    sizes = sized(job.method, experiment.sizes)
    with torch.random.fork_rng([]):
        torch.manual_seed(job.seed)
        model = CompressiveTransformer(sizes)
    if torch.cuda.is_available():
        model = model.cuda()
    checkpoint = out / "checkpoints" / f"{job.stem}.safetensors"
    trained = train(
        model, experiment.texts["train"], experiment.recipe, seed=job.seed, checkpoint=checkpoint, on_progress=tell
    )
    tell(Progress(1, 1, "long text", "evaluate", 0, 0, 0, math.nan))
    begun = time.perf_counter()
    found = {
        "method": job.method,
        "seed": job.seed,
        "parameters": sum(each.numel() for each in model.parameters()),
        "of compressors": sum(each.numel() for each in model.compressor_parameters()),
        "curve": trained.curve,
        **_tested(experiment, job.method, model),
    }
    found["seconds"] = {"train": trained.seconds, "evaluate": round(time.perf_counter() - begun, 3)}
    write_network(out, job, model, experiment.vocabulary)
    return found


def _tested(experiment: TextComparison, method: str, model: CompressiveTransformer) -> dict[str, Any]:
    """All figures of a trained network."""
    asked, vocabulary, length = experiment.evaluation, experiment.vocabulary, experiment.recipe.window
    read = functools.partial(evaluation.measure, rows=asked.rows, length=length, limit=asked.limit)
    bits, words = {}, {}
    found = read(model, experiment.texts["validation"])
    bits["validation"] = round(evaluation.bits_per_character(found, vocabulary), 5)
    found = read(model, experiment.texts["test"])
    bits["test"] = round(evaluation.bits_per_character(found, vocabulary), 5)
    if asked.limit is None and "test" in experiment.words:
        words["test"] = math.exp(float(found.nats.double().sum()) / experiment.words["test"])
    rare = evaluation.by_rarity(found, vocabulary, experiment.training_words)
    lengths = {
        "test, longer memory": longer(method, asked.memory, asked.compressed),
        "test, recent only": (experiment.sizes.memory, 0),
    }
    for name, kept in lengths.items():
        model.keep(*kept)
        other = read(model, experiment.texts["test"])
        bits[name] = round(evaluation.bits_per_character(other, vocabulary), 5)
    model.keep(model.sizes.memory, model.sizes.compressed)
    return {
        "bits": bits,
        "word perplexity": words,
        "by place": [round(each, 5) for each in evaluation.by_place(found, length)],
        "by rarity": rare,
        "attention": [[round(each, 5) for each in layer] for layer in found.attention.tolist()],
    }
