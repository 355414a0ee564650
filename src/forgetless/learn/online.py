"""Task-free Memory Aware Synapses: protection for a stream that nobody has cut into tasks.

Aljundi, Kelchtermans, Tuytelaars, "Task-Free Continual Learning", CVPR 2019, arXiv 1812.03596.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.learn import checkpoint
from forgetless.learn.families.hard_buffer import HardBuffer
from forgetless.learn.families.plateaus import Plateaus
from forgetless.learn.families.state import Tensors, pack, scalar, unpack
from forgetless.learn.families.task_free import Refresh, TaskFree
from forgetless.learn.samples import Batch
from forgetless.measure.importance import Importance, refuse_mismatch
from forgetless.measure.measurement import Measurement
from forgetless.model.outputs import Forward, Select
from forgetless.protect.anchor import Anchor

_KIND = "stream"


class TaskFreeMAS:
    """Learn a stream without task borders, and protect what was learned whenever the loss has settled.

        stream = forgetless.TaskFreeMAS(model, optimizer, strength=1)
        for inputs, targets in endless:
            stream.step(F.cross_entropy(model(inputs), targets, reduction="none"), (inputs, targets))

    Where the mean and the variance of the last losses fall below two thresholds (a *plateau*), Ω is measured on the
    *hard buffer*, the samples of the highest loss; the mean over all these measurements protects the present weights
    from then on. The next plateau counts after the loss has risen above the last one (a *peak*). The penalty
    `λ Σ Ω (θ − θ*)²` acts as a proximal step (the pull) after every step of the optimizer.

    Cost: with `refresh="plateau"`, a measurement of the buffer at each plateau; with `refresh="batch"`, a forward and
    a backward pass more per batch (docs/performance.md). Memory: θ*, twice Ω and the buffer, however long the stream.

    Attributes:
        anchor: Ω, θ* and λ that act now.
        skipped: how many batches were left out.
        estimator: what Ω is; a subclass may name another of `forgetless.Measurement`'s ("fisher": online EWC).

    Differences from the authors' code: Ω is the paper's `|∂‖F‖²/∂θ|`, where that has the norm unsquared; the penalty
    has no ½, and acts as a proximal step; a window counts once it is full.
    """

    estimator: ClassVar[str] = "mas"

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        strength: float = 1.0,
        *,
        window: int = 5,
        mean: float = 0.2,
        variance: float = 0.1,
        buffer: int = 30,
        refresh: Refresh = "plateau",
        nonfinite: Literal["stop", "skip"] = "stop",
        output: Select = None,
        forward: Forward | None = None,
        exclude: str | Iterable[str] = (),
    ) -> None:
        """Nothing is protected before the first plateau.

        Args:
            model: the network, with all outputs that the stream will need.
            optimizer: what trains it; the anchor attaches itself to it.
            strength: λ ≥ 0.
            window: how many losses are looked at.
            mean: below which their mean is at a plateau. It depends on the loss: choose it by what the network reaches.
            variance: below which their variance is.
            buffer: how many hard samples are kept.
            refresh: what Ω is measured on: "plateau", the hard buffer at each plateau; "batch", every batch of the
                stream, as it comes.
            nonfinite: what a loss that is NaN or Inf does: "stop" raises, "skip" leaves the batch out and counts it.
            output: which tensors of the model's output are F; see `forgetless.mas`.
            forward: (model, batch) → output, where `model(inputs)` is not the way.
            exclude: parameters to leave free.

        Raises:
            ForgetlessError: settings out of range, or an optimizer that `Anchor.attach` refuses.
        """
        if nonfinite not in ("stop", "skip"):
            raise ForgetlessError(f"nonfinite must be 'stop' or 'skip', not {nonfinite!r}.")
        self._model, self._optimizer, self._nonfinite = model, optimizer, nonfinite
        self._options = {"output": output, "forward": forward, "exclude": exclude}
        self._core = TaskFree(Plateaus(window, mean, variance), HardBuffer(buffer), refresh)
        self._core.measure_by(self._measurement())
        self.skipped = 0
        self.anchor = Anchor(model, None, strength)
        self.anchor.attach(optimizer)

    def _measurement(self) -> Measurement:
        options: dict[str, Any] = self._options
        return Measurement(self._model, self.estimator, moving=True, **options)

    @property
    def importance(self) -> Importance | None:
        """The mean of what was measured; None before the first."""
        return self._core.importance

    @property
    def hard(self) -> HardBuffer:
        """The buffer: `hard.batch` with `hard.losses`."""
        return self._core.hard

    @property
    def plateaus(self) -> Plateaus:
        """What detects plateaus and peaks."""
        return self._core.plateaus

    @property
    def refresh(self) -> Refresh:
        """What Ω is measured on."""
        return self._core.refresh

    @property
    def steps(self) -> int:
        """How many losses were looked at."""
        return self._core.steps

    @property
    def updates(self) -> int:
        """How many plateaus there were."""
        return self._core.updates

    def step(self, loss: Tensor, batch: Batch, *, replayed: Tensor | None = None, observe: bool = True) -> str | None:
        """Take a step of the optimizer on a loss, and look at it.

        Args:
            loss: of every sample, `[N]`, or their mean. By a mean all samples of the batch are equally hard.
            batch: the samples, inputs first; with their targets, if the buffer is to be replayed.
            replayed: the losses of `hard.batch`, `[n]`, where it is learned along; the mean of all is minimized.
            observe: False for further steps on the same batch, which count neither for the window nor for the buffer.

        Returns:
            "plateau" or "peak" where one begins, "skipped", or None.

        Raises:
            ForgetlessError: a loss that is NaN or Inf, unless those are skipped, or is neither a scalar nor one per
                sample, or samples of another form than before; nothing has changed.
        """
        every = self._core.every(loss, batch, replayed)
        if not bool(torch.isfinite(every).all()):
            return self._refused(every)
        self._optimizer.zero_grad()
        torch.autograd.backward(every.mean())
        self._optimizer.step()
        return self._core.observe(self.anchor, loss, batch, replayed) if observe else None

    def observe(self, loss: Tensor, batch: Batch, *, replayed: Tensor | None = None) -> str | None:
        """Look at a loss after a step of your own; arguments and errors as for `step`.

        For loops that scale losses, clip gradients or step otherwise: the pull acts in every `optimizer.step()`.
        """
        every = self._core.every(loss, batch, replayed)
        if not bool(torch.isfinite(every).all()):
            return self._refused(every)
        return self._core.observe(self.anchor, loss, batch, replayed)

    def _refused(self, losses: Tensor) -> str:
        if self._nonfinite == "stop":
            found = losses[~torch.isfinite(losses)][0].item()
            raise ForgetlessError(
                f"the loss became {found} at step {self.steps + 1}; nothing has changed. Lower the learning rate, or "
                "leave such batches out with nonfinite='skip'."
            )
        self.skipped += 1
        return "skipped"

    def detach(self) -> None:
        """Stop protecting: the optimizer steps as before."""
        self.anchor.detach()

    def state_dict(self) -> Tensors:
        """Everything that it keeps, as named tensors; views, not copies. Model and optimizer are not part of it."""
        own = {"anchor": self.anchor.state_dict(), "skipped": scalar(self.skipped)}
        return pack({**own, "stream": self._core.tree()})

    def load_state_dict(self, state: Tensors) -> None:
        """Take back what `state_dict` gave, for the same model and settings.

        Raises:
            ForgetlessError: it is incomplete, damaged or another model's; nothing has changed then.
        """
        kept = unpack(state)
        fresh = TaskFree(replace(self.plateaus), HardBuffer(self.hard.size), self.refresh)
        try:
            fresh.load(kept.get("stream", {}), self._measurement(), next(self._model.parameters()).device)
            skipped = int(kept["skipped"])
            self.anchor.load_state_dict(kept.get("anchor", {}))
        except (ForgetlessError, torch.OutOfMemoryError):
            raise
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise ForgetlessError("the state of a stream is incomplete or damaged.") from error
        self._core, self.skipped = fresh, skipped

    def save(self, path: str | Path) -> None:
        """Write the model, the optimizer with its rates, the random generators and all that is kept to one file.

        The file is written whole or not at all.

        A stream that was killed and goes on from here gives a bit-identical result, if its samples come again in the
        same order, without the first `steps + skipped` batches.

        Raises:
            ForgetlessError: the optimizer keeps something else than tensors, or the file cannot be written.
        """
        parts = {
            "model": self._model.state_dict(),
            "optimizer": checkpoint.optimizer_state(self._optimizer),
            "stream": self.state_dict(),
            "generator": self._generators(),
        }
        files.write_tensors(path, pack(parts), _KIND, self._header())

    def _header(self) -> dict[str, Any]:
        """What must be the same where it goes on, and the rates."""
        rates = [float(group["lr"]) for group in self._optimizer.param_groups if "lr" in group]
        return {"refresh": self.refresh, "optimizer": type(self._optimizer).__name__, "rates": rates}

    def _generators(self) -> Tensors:
        device = next(self._model.parameters()).device
        own = {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {}
        return {"cpu": torch.get_rng_state(), **own}

    def load(self, path: str | Path) -> int:
        """Take all of it back; gives how many steps were looked at.

        Raises:
            ForgetlessError: the file is missing, damaged, or another model's or stream's; nothing has changed then.
        """
        tensors, header = files.read_tensors(path, _KIND)
        here = self._header()
        for name in ("refresh", "optimizer"):
            if header.get(name) != here[name]:
                raise ForgetlessError(f"{path} is of a stream with {name}={header.get(name)!r}, not {here[name]!r}.")
        rates = header.get("rates")
        if not isinstance(rates, list) or len(rates) != len(here["rates"]) or not all(type(r) is float for r in rates):
            raise ForgetlessError(f"{path} is of an optimizer with other groups of parameters.")
        parts = unpack(tensors)
        try:
            weights, entries = parts.get("model", {}), parts.get("optimizer", {})
            generators = parts["generator"]
            # Whatever may be wrong shows before anything changes.
            refuse_mismatch(weights, self._model.state_dict(), f"the network in {path}", "the model")
            checkpoint.entries(self._optimizer, entries)
            torch.Generator().set_state(generators["cpu"])
            self.load_state_dict(parts["stream"])
            self._model.load_state_dict(weights)
            checkpoint.restore_optimizer(self._optimizer, entries)
            torch.set_rng_state(generators["cpu"])
            if "cuda" in generators:
                torch.cuda.set_rng_state(generators["cuda"], next(self._model.parameters()).device)
        except ForgetlessError:
            raise
        except (LookupError, TypeError, ValueError, RuntimeError) as error:
            raise ForgetlessError(f"{path} is damaged, or of another model: {error}.") from error
        for group, rate in zip((g for g in self._optimizer.param_groups if "lr" in g), rates, strict=True):
            group["lr"] = rate
        return self.steps
