"""Where a stream's loss has settled and where it rises again: task-free continual learning's substitute for borders.

Aljundi, Kelchtermans, Tuytelaars, "Task-Free Continual Learning", CVPR 2019, arXiv 1812.03596.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

import torch
from torch import Tensor

from forgetless.errors import ForgetlessError


@dataclass
class Plateaus:
    """Detects plateaus and peaks in the window of the last losses, of mean m and variance v (over the window).

    A *plateau* is where `m < mean` and `v < variance`, once after the start and once after every peak. A *peak* is
    where `m > m_p + √v_p`, the mean and the standard deviation of the window at the last plateau.

    The authors' code looks from the first loss on; this looks once the window is full, since the variance of a single
    loss is 0. Their thresholds suit losses of their scale: choose them by the loss that the network reaches.

    Attributes:
        window: how many losses; 5 in their code.
        mean: below which the mean of a plateau is; 0.2 there.
        variance: below which its variance is; 0.1 there.

    Raises:
        ForgetlessError: a window below 2, or thresholds that are not positive.
    """

    window: int = 5
    mean: float = 0.2
    variance: float = 0.1
    _losses: deque[float] = field(init=False, repr=False)
    _plateau: tuple[float, float] | None = field(default=None, init=False, repr=False)  # mean and variance at the last
    _armed: bool = field(default=True, init=False, repr=False)  # whether there was a peak since

    def __post_init__(self) -> None:
        if not isinstance(self.window, int) or self.window < 2:
            raise ForgetlessError(f"a window of losses needs two or more, not {self.window!r}.")
        for name, value in (("mean", self.mean), ("variance", self.variance)):
            if not (isinstance(value, (int, float)) and math.isfinite(value) and value > 0):
                raise ForgetlessError(f"the {name} of a plateau must be below a positive number, not {value!r}.")
        self._losses = deque(maxlen=self.window)

    def add(self, loss: float) -> str | None:
        """Take in the next loss; gives "plateau" or "peak" where one begins here, else None.

        Raises:
            ForgetlessError: a loss that is NaN or Inf.
        """
        if not math.isfinite(loss):
            raise ForgetlessError(f"the loss is {loss}: a window of losses holds finite ones.")
        self._losses.append(float(loss))
        if len(self._losses) < self.window:
            return None
        mean = math.fsum(self._losses) / self.window
        variance = math.fsum((each - mean) ** 2 for each in self._losses) / self.window
        event = None
        if not self._armed and self._plateau is not None and mean > self._plateau[0] + math.sqrt(self._plateau[1]):
            self._armed, event = True, "peak"
        if self._armed and mean < self.mean and variance < self.variance:
            self._armed, self._plateau, event = False, (mean, variance), "plateau"
        return event

    def state(self) -> Tensor:
        """Where it is, as one tensor of float64: the last plateau, whether it waits for a plateau, and the losses."""
        last = (math.nan, math.nan) if self._plateau is None else self._plateau
        return torch.tensor([*last, float(self._armed), *self._losses], dtype=torch.float64)

    def load_state(self, state: Tensor) -> None:
        """Take back what `state` gave.

        Raises:
            ForgetlessError: it is not one of such a window.
        """
        fits = state.dtype == torch.float64 and state.dim() == 1 and 3 <= len(state) <= 3 + self.window
        if not fits or not bool(torch.isfinite(state[2:]).all()) or bool(state[1] < 0):
            raise ForgetlessError(f"the state of a window of {self.window} losses does not fit: {list(state.shape)}.")
        mean, variance, armed, *losses = state.tolist()
        self._plateau = None if math.isnan(mean) else (mean, variance)
        self._armed, self._losses = bool(armed), deque(losses, maxlen=self.window)
