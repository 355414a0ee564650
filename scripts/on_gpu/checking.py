"""What a check is, and how a list of them is run: nothing that one of them raises stops the others."""

from __future__ import annotations

import contextlib
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from forgetless import ForgetlessError

Figures = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """Where and how thoroughly the checks run.

    Attributes:
        device: what they run on.
        quick: small sizes and few repeats, for a CPU.
    """

    device: torch.device
    quick: bool = False

    @property
    def cuda(self) -> bool:
        """Whether this is a GPU of CUDA."""
        return self.device.type == "cuda"

    def need_cuda(self, what: str) -> None:
        """End a check that has no meaning on a CPU.

        Raises:
            NotRun: the device is no GPU.
        """
        if not self.cuda:
            raise NotRun(f"{what} needs a CUDA device")

    def wait(self) -> None:
        """Until the device has done everything."""
        if self.cuda:
            torch.cuda.synchronize()


class Failed(Exception):
    """A check found what must not be; it carries the figures."""

    def __init__(self, sentence: str, figures: Figures | None = None) -> None:
        super().__init__(sentence)
        self.figures = figures or {}


class NotRun(Exception):
    """A check cannot be made on this machine."""


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: a line's first words.
        run: takes the setting; gives figures, or raises `Failed`, `NotRun` or anything else.
        may_refuse: whether a `ForgetlessError` is a right answer; otherwise it counts as a failure.
    """

    name: str
    run: Callable[[Setting], Figures]
    may_refuse: bool = False


@dataclass
class Outcome:
    """What became of a check.

    Attributes:
        name: the check's.
        outcome: "ok", "FAILED", "refused" (one sentence of the library) or "not run" (not possible on this machine).
        sentence: why, if not ok.
        figures: what was measured.
        said: the warnings that were given meanwhile.
        seconds: how long it took.
        traceback: its last lines, of an exception that nobody foresaw.
    """

    name: str
    outcome: str
    sentence: str = ""
    figures: Figures = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    seconds: float = 0.0
    traceback: list[str] = field(default_factory=list)

    def line(self) -> str:
        """`name: outcome (sentence) figures`."""
        said = f" ({self.sentence})" if self.sentence else ""
        figures = ", ".join(f"{key} {_short(value)}" for key, value in self.figures.items())
        return f"{self.name}: {self.outcome}{said}{'; ' if figures else ''}{figures} [{self.seconds:.1f} s]"

    def as_dict(self) -> dict[str, Any]:
        """For JSON, without what is empty."""
        return {key: value for key, value in asdict(self).items() if value not in ("", [], {})}


def run(checks: Sequence[Check], setting: Setting, budget: float, done: Callable[[Outcome], None]) -> list[Outcome]:
    """Run the checks in order.

    Args:
        checks: the checks.
        setting: where they run.
        budget: seconds; those that come later are not run.
        done: is told of each outcome at once.
    """
    begin, outcomes = time.monotonic(), []
    for check in checks:
        left = budget - (time.monotonic() - begin)
        late = Outcome(check.name, "not run", f"the {budget:.0f} s were over")
        outcome = run_one(check, setting, left) if left > 0 else late
        outcomes.append(outcome)
        done(outcome)
    return outcomes


def run_one(check: Check, setting: Setting, limit: float = 120.0) -> Outcome:
    """Run one check for at most about `limit` seconds; whatever it raises becomes its outcome."""
    begin, outcome = time.monotonic(), Outcome(check.name, "ok")
    torch.manual_seed(0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            with _limited(min(limit, 120.0)):
                outcome.figures = check.run(setting)
                setting.wait()  # an error of the device belongs to the check that made it
        except Failed as error:
            outcome.outcome, outcome.sentence, outcome.figures = "FAILED", str(error), error.figures
        except NotRun as error:
            outcome.outcome, outcome.sentence = "not run", str(error)
        except ForgetlessError as error:
            outcome.outcome = "refused" if check.may_refuse else "FAILED"
            outcome.sentence = str(error) if check.may_refuse else f"refused: {error}"
        except Exception as error:
            lines = traceback.format_exc().strip().splitlines()
            said = str(error).strip().splitlines()
            outcome.outcome, outcome.traceback = "FAILED", lines[-12:]
            outcome.sentence = f"{type(error).__name__}: {said[0] if said else ''}"[:300]
    outcome.said = sorted({f"{each.message}".splitlines()[0][:300] for each in caught})
    outcome.seconds = round(time.monotonic() - begin, 2)
    with contextlib.suppress(Exception):
        if setting.cuda:
            torch.cuda.empty_cache()
    return outcome


@contextlib.contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Raise `TimeoutError` inside after that many seconds; code that never comes back to Python goes on."""

    def over(*_: Any) -> None:
        raise TimeoutError(f"not done after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.1))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
