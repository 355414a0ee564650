"""The trained networks of a run directory: `kept/VARIANT-SEED.safetensors`, with their sizes and their vocabulary."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.lab.kept import kept
from forgetless.lab.long_text.training import restore_weights
from forgetless.lab.long_text.vocabularies import Vocabulary, vocabulary
from forgetless.lab.networks.compressive import CompressiveTransformer, Sizes
from forgetless.lab.running.jobs import Job
from forgetless.model.parameters import listing

KIND = "language model"  # of a file


@dataclass(frozen=True)
class _Header:
    sizes: Sizes
    vocabulary: dict[str, Any]
    method: str
    seed: int


def write_network(out: Path, job: Job, model: CompressiveTransformer, tokens: Vocabulary) -> None:
    """Keep a trained network.

    Raises:
        ForgetlessError: the system does not let it be written.
    """
    sizes = dataclasses.asdict(model.sizes)
    header = {"sizes": sizes, "vocabulary": tokens.saved(), "method": job.method, "seed": job.seed}
    files.write_tensors(kept(out, job.stem), model.state_dict(), KIND, header)


def read_network(run: Path, method: str | None, seed: int | None) -> tuple[CompressiveTransformer, Vocabulary]:
    """A trained network of a run directory, in eval mode, and what its tokens are.

    Args:
        run: the run directory.
        method: which variant; None for conv+attention, or the first there is.
        seed: of which run; None for the first.

    Raises:
        ForgetlessError: there is no such network, or its file is damaged.
    """
    found = sorted((run / "kept").glob("*.safetensors"))
    names = [path.stem.rpartition("-") for path in found]
    if not found:
        raise ForgetlessError(f"{run} holds no trained language model; let `forgetless run long-text` finish one.")
    wanted = [
        path
        for path, (name, _, number) in zip(found, names, strict=True)
        if method in (None, name) and (seed is None or str(seed) == number)
    ]
    if not wanted:
        raise ForgetlessError(
            f"{run} holds no such network; it holds {listing([path.stem for path in found], most=99)}."
        )
    usual = [path for path in wanted if path.stem.startswith("conv+attention-")]
    path = (usual or wanted)[0]
    state, header = files.read_tensors(path, KIND)
    told: _Header = files.decoded(header, _Header, path)
    model = CompressiveTransformer(told.sizes)
    restore_weights(model, state, path)
    return model.eval(), vocabulary(told.vocabulary)
