"""Check an installed `forgetless`: it answers, its files are there, and with `--compiled` its C code too.

python scripts/check_install.py [--compiled]
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

PACKAGE = Path(str(importlib.util.find_spec("forgetless").origin)).parent
#: Read while the library runs.
DATA = (
    "py.typed",
    "lab/report/layout.html",
    "lab/report/page.html",
    "lab/report/page.css",
    "lab/report/repair.html",
    "lab/facts/retrieval.html",
    "lab/long_text/page.html",
    "lab/report/sections/averages.html",
    "lab/report/sections/macros.html",
)
COMPILED = ("measure/kernels/parts/_modulus", "protect/optimizers/_pull")


def loads(name: str) -> bool:
    """Whether the extension module is there and Python can load it; no other module is imported."""
    for suffix in EXTENSION_SUFFIXES:
        path = PACKAGE / f"{name}{suffix}"
        if path.is_file():
            spec = importlib.util.spec_from_file_location(path.name.split(".")[0], path)
            return spec is not None and importlib.util.module_from_spec(spec) is not None
    return False


version = importlib.metadata.version("forgetless")
said = subprocess.run(["forgetless", "--version"], capture_output=True, text=True, check=True).stdout.strip()
faults = [] if said == version else [f"forgetless --version says {said}, and {version} is installed"]
faults += [f"{name} is missing" for name in DATA if not (PACKAGE / name).is_file()]
if "--compiled" in sys.argv[1:]:
    faults += [f"{name} is not compiled or does not load" for name in COMPILED if not loads(name)]
if faults:
    sys.exit("check_install: " + "; ".join(faults))
print(f"forgetless {version} is whole")
