"""Every example runs as it stands, and shows what it claims."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def printed(name: str) -> str:
    done = subprocess.run([sys.executable, EXAMPLES / name], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_plain_loop() -> None:
    pytest.importorskip("mlxtend")
    found = printed("plain_loop.py")
    (before, plain), (_, held) = re.findall(r": 0 … 4 ([\d.]+) % → ([\d.]+) %", found)
    assert float(held) > float(before) - 2
    assert float(plain) < float(held) - 4


def test_lora() -> None:
    pytest.importorskip("peft")
    found = printed("lora.py")
    (before, plain, _), (_, held, second) = re.findall(r"first ([\d.]+) % → ([\d.]+) %, second ([\d.]+) %", found)
    assert float(before) > 95
    assert float(plain) < float(held) - 20
    assert float(second) > 90
