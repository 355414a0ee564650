"""Check an installed `forgetless`: it answers, its files are there, and with `--compiled` its C code too.

python scripts/check_install.py [--compiled]
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import subprocess
import sys
from importlib.resources import files

PACKAGE = files("forgetless")
#: Read while the library runs.
DATA = ("py.typed", "lab/report/page.html", "lab/report/page.css")
COMPILED = ("forgetless.measure.kernels.parts._modulus", "forgetless.protect.optimizers._pull")

version = importlib.metadata.version("forgetless")
said = subprocess.run(["forgetless", "--version"], capture_output=True, text=True, check=True).stdout.strip()
faults = [] if said == version else [f"forgetless --version says {said}, and {version} is installed"]
faults += [f"{name} is missing" for name in DATA if not PACKAGE.joinpath(name).is_file()]
if "--compiled" in sys.argv[1:]:
    faults += [f"{name} was not compiled" for name in COMPILED if importlib.util.find_spec(name) is None]
if faults:
    sys.exit("check_install: " + "; ".join(faults))
print(f"forgetless {version} is whole")
