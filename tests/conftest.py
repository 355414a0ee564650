"""Every test runs on one thread, under run-time checks of every annotation of the package, and repeats itself."""

from __future__ import annotations

import torch
from hypothesis import settings
from jaxtyping import install_import_hook

install_import_hook("forgetless", "typechecker.checked")

torch.set_num_threads(1)
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")
