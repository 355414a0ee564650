"""Every test runs on one thread, under run-time checks of every annotation of the package, and repeats itself."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings
from jaxtyping import config, install_import_hook

from processes import Processes

install_import_hook("forgetless", "typechecker.checked")

torch.set_num_threads(1)
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")
# A shell lets what it starts in the background ignore Ctrl-C, and Python keeps to that; several tests press it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Without run-time checks, as for a user: what the package itself says to a bad argument."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def two() -> Iterator[Processes]:
    """Two processes that run functions together; started once, for a start takes longer than most that they run."""
    processes = Processes(timeout=60)
    yield processes
    processes.close()
