"""Annotated shapes are checked here, and cost users nothing."""

from __future__ import annotations

import subprocess
import sys

import jaxtyping
import pytest
import torch
from torch import nn

from forgetless.measure import draws
from forgetless.model.outputs import Output


def test_a_wrong_shape_does_not_pass() -> None:
    with pytest.raises(jaxtyping.TypeCheckError, match="numbers"):
        draws.labels(torch.zeros(2, 3, 4), 0, torch.zeros(3, dtype=torch.int64))
    with pytest.raises(jaxtyping.TypeCheckError, match="log_p"):
        draws.labels(torch.zeros(2, 4), 0, torch.zeros(2, dtype=torch.int64))


def test_a_right_shape_does() -> None:
    assert Output().squared_norms(nn.Linear(3, 2), torch.zeros(4, 3)).shape == (4,)


def test_users_do_not_load_jaxtyping() -> None:
    code = "import sys, forgetless.model.shapes as s; print('jaxtyping' in sys.modules, s.Float[int, 'n'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False <class 'int'>\n"
