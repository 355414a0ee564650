"""Long commands that are killed at random moments and resumed until they end: the results are those of one left alone.

In between the disk is full, or the clock jumps by days. The processes are forked from one that has everything imported,
which takes longer than the commands.
"""

from __future__ import annotations

import builtins
import errno
import importlib
import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import layouts
import tiny_folders
from soak.parts import RESULTS, begun, finish, save

FILE = RESULTS / "kills.json"
_DEMO = ["run", "demo", "--method", "mas"]
_TEXTS = ["learn", "hf:m", "--new", "new.jsonl", "--like-old", "old.txt", "--batch-size", "4", "--lr", "1e-2"]
_PICTURES = ["learn", "nets:Net", "--new", "new", "--like-old", "old/any", "--size", "16", "--batch-size", "4"]
_ONLINE = ["run", "online", "--data", "own", "--cache", "cache", "--stream", "mnist10k", "--network", "three-layers"]
_SMALL = ["--batch-size", "8", "--buffer", "10", "--replay", "8", "--glances", "2", "--look", "2"]
_LONG = ["run", "long-text", "--text", "long.txt", "--steps", "30", "--window", "8", "--rows", "2", "--width", "16"]
#: What is run: words after `forgetless`, to which `--out OUT --resume` is added.
COMMANDS = {
    "a run": [*_DEMO, "--method", "si"],
    "several processes": [*_DEMO, "--seeds", "2", "--processes", "2"],
    "pictures are learned": [*_PICTURES, "--epochs", "2", "--compare", "--log", "csv"],
    "texts are learned": [*_TEXTS, "--log", "csv"],
    "texts are learned with LoRA": [*_TEXTS, "--lora"],
    "texts are learned by distillation": [*_TEXTS, "--method", "distillation"],
    "a measurement": ["measure", "nets:Net", "--data", "old/any", "--size", "16", "--batch-size", "1"],
    "a stream": [*_ONLINE, *_SMALL, "--method", "er", "--method", "mango"],
    "long texts": [*_LONG, "--layers", "2", "--heads", "2", "--memory", "8", "--compressed", "4"],
    "a repair": ["repair", "m", "m2", "--method", "wise-ft", "--alpha", "0.7"],
}
_NETWORK = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.drop = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout(0.2)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.drop(self.norm(self.conv(x.float() / 255)).relu().mean((2, 3))))
"""
_VOLATILE = ("seconds", "environment")  # keys of what differs from one run to the next
_LISTED = (
    ".html",
    ".jsonl",
)  # files of which only the name counts: a page with times, and logs with the lines of a kill


@dataclass(frozen=True)
class Upset:
    """What happens besides kills: `begin` is called in the process that runs the command; whether it may fail then."""

    begin: Callable[[random.Random, Path], None]
    fails: bool = False


def run(kills: int, file: Path = FILE) -> bool:
    """Until so many processes were killed. Whether every run ended with the same numbers, and left nothing behind."""
    torch.set_num_threads(1)
    results = begun(file, {"kills": 0, "runs": {}, "wrong": []})
    results = {**results, "upset": results.get("upset", {})}
    _imported()
    here = os.getcwd()
    whole: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        _made()
        for name in COMMANDS:
            start = time.monotonic()
            assert _ended(_begun(name, None, random.Random(0))) == 0, Path("said").read_text()
            whole[name] = (_left(), _listing(), time.monotonic() - start)
            _removed()
        while results["kills"] < kills:
            chance = random.Random(results["kills"])
            (name,) = chance.choices(list(whole), [seconds**-0.5 for *_, seconds in whole.values()])
            _killed(results, name, *whole[name], chance)
            save(file, results)
        os.chdir(here)
    return finish(results)


def _imported() -> None:
    """What the commands import, here."""
    sys.path.insert(0, "")
    for name in ("transformers", "peft", "PIL.Image", "forgetless.lab.finetuning.teach", "forgetless.cli.run"):
        importlib.import_module(name)


def _made() -> None:
    """Networks and data, in this folder."""
    Path("nets.py").write_text(_NETWORK)
    tiny_folders.pictures(Path("new"), ("red", "green"), 8)
    tiny_folders.pictures(Path("old"), ("any",), 12)
    model = tiny_folders.language_folder(Path("m"))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.01)
    model.save_pretrained("m2")
    Path("old.txt").write_text("\n".join(tiny_folders.half_texts(20, 0, 1)))
    rows = [json.dumps({"text": each}) + "\n" for each in tiny_folders.half_texts(20, 1, 2)]
    Path("new.jsonl").write_text("".join(rows))
    Path("long.txt").write_text(" ".join(tiny_folders.half_texts(400, 0, 1)))
    for part, count in (("train", 12), ("test", 4)):
        for label in range(4):
            for number in range(count):
                layouts.picture(Path("own", part, f"kind {label}", f"{number}.png"), 60 * label + number, (32, 32))


def _begun(name: str, upset: Upset | None, chance: random.Random) -> int:
    """The number of a process that runs the command in a session of its own."""
    sys.stdout.flush()
    if number := os.fork():
        return number
    os.setsid()
    said = os.open("said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(said, 1)
    os.dup2(said, 2)
    if upset is not None:
        upset.begin(chance, Path("out"))
    from forgetless.cli import main

    # Processes that are started anew begin in the folder where Python did.
    sys.argv = ["forgetless", *COMMANDS[name], "--out", os.path.abspath("out"), "--resume"]
    try:
        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 99
    sys.stderr.flush()
    os._exit(code)


def _ended(number: int, within: float | None = None) -> int | None:
    """The exit code of a process; None if it has not ended within so many seconds."""
    end = None if within is None else time.monotonic() + within
    while end is None or time.monotonic() < end:
        found, status = os.waitpid(number, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    return None


def _killed(
    results: dict[str, Any], name: str, expected: Any, listing: list[str], seconds: float, chance: random.Random
) -> None:
    wrong: dict[str, Any] = {}
    while True:
        kind = chance.choice([None, None, *UPSETS])
        if kind is not None:
            results["upset"][kind] = results["upset"].get(kind, 0) + 1
        number = _begun(name, UPSETS.get(kind or ""), chance)
        code = _ended(number, chance.uniform(0.05, 1.2) * seconds)
        if code is None:
            os.kill(number, signal.SIGKILL)  # its own processes see it, and end
            _ended(number)
            results["kills"] += 1
            seconds *= 1.1  # where others use the machine it takes longer than it took alone
            continue
        said = Path("said").read_text()
        if kind is not None and UPSETS[kind].fails and code == 2 and "Traceback" not in said:
            results["told"] = results.get("told", 0) + 1
            continue  # one sentence, and on when there is room again
        if code != 0 and "exists already" not in said:  # else it was killed when all was there, and before it said so
            wrong = {"code": code, "upset": kind, "said": said[-800:]}
        break
    results["runs"][name] = results["runs"].get(name, 0) + 1
    found = {} if wrong else _left()
    if wrong or found != expected or _listing() != listing:
        differing = sorted(each for each in {*found, *expected} if found.get(each) != expected.get(each))
        besides = sorted(set(_listing()) ^ set(listing))
        results["wrong"].append({"run": name, **wrong, "differing": differing, "besides": besides})
        print(results["wrong"][-1], flush=True)
    _removed()


def _removed() -> None:
    for each in Path().glob("out*"):
        if each.is_dir():
            shutil.rmtree(each)
        else:
            each.unlink()


def _listing() -> list[str]:
    return sorted(str(path) for each in Path().glob("out*") for path in (each, *each.rglob("*")) if path.is_file())


def _left() -> dict[str, Any]:
    """What each file holds that a kill must not change."""
    found: dict[str, Any] = {}
    for path in map(Path, _listing()):
        if path.suffix in _LISTED or path.name.endswith("lock"):
            continue
        content = path.read_bytes()
        if path.suffix == ".safetensors" and b'"seconds' in content[:100_000]:
            content = content[8 + int.from_bytes(content[:8], "little") :]  # a checkpoint's header has times
        found[str(path)] = _steady(json.loads(content)) if path.suffix == ".json" else content
    return found


def _steady(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _steady(each) for key, each in value.items() if key not in _VOLATILE and key != "sha256"}
    return [_steady(each) for each in value] if isinstance(value, list) else value


def _file_limit(chance: random.Random, _: Path) -> None:
    """No file may become longer: the system refuses to write, as where a quota ends."""
    most = int(10 ** chance.uniform(1.5, 5))
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


def _full_disk(chance: random.Random, _: Path) -> None:
    """After some writes there is no room left: where a file is made, or where its bytes reach the disk."""
    left = chance.randrange(40)
    real = {name: getattr(os, name) for name in ("open", "fsync", "mkdir", "replace", "rename", "write")}

    def refused(name: str) -> Callable[..., Any]:
        def each(*given: Any, **named: Any) -> Any:
            nonlocal left
            writes = name != "open" or bool(given[1] & os.O_CREAT)
            left -= writes
            if writes and left < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real[name](*given, **named)

        return each

    for name in real:
        setattr(os, name, refused(name))
    opened = io.open

    def one(file: Any, mode: str = "r", *given: Any, **named: Any) -> Any:
        nonlocal left
        left -= any(letter in mode for letter in "wax+")
        if left < 0 and any(letter in mode for letter in "wax+"):
            raise OSError(errno.ENOSPC, "No space left on device", os.fspath(file))
        return opened(file, mode, *given, **named)

    builtins.open = io.open = one


def _jumping_clock(chance: random.Random, _: Path) -> None:
    """The clock goes back or ahead by up to a month, again and again."""
    away = 0.0
    real, strftime, gmtime = time.time, time.strftime, time.gmtime

    def now() -> float:
        nonlocal away
        if chance.random() < 0.2:
            away = chance.uniform(-30, 30) * 86_400
        return real() + away

    time.time = now
    time.gmtime = lambda seconds=None: gmtime(now() if seconds is None else seconds)
    time.strftime = lambda form, moment=None: strftime(form, time.gmtime() if moment is None else moment)


UPSETS = {
    "a limit on files": Upset(_file_limit, fails=True),
    "a full disk": Upset(_full_disk, fails=True),
    "a jumping clock": Upset(_jumping_clock),
}
