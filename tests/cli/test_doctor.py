"""`forgetless doctor`: what is there, what is missing and how to get it; the exit code says whether it works."""

from __future__ import annotations

import json
import shutil
import sys
from importlib import metadata, util

import pytest

from cli.conftest import Command
from forgetless import Importance, reference


def test_a_whole_installation(forgetless: Command) -> None:
    done = forgetless("doctor", "--json")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["whole"]
    names = {part["name"] for part in found["always needed"]}
    assert {"python", "torch", "safetensors", "typer", "jinja2"} <= names
    assert "transformers" not in names
    extras = {part["name"]: part for part in found["extras"]}
    assert {"vision", "transformers", "peft", "lightning"} <= extras.keys()
    assert "dev" not in extras
    assert "transformers" in extras["peft"]["found"]  # an extra that another one includes
    shown = forgetless("doctor")
    assert "exactness" in shown.stdout


def test_what_is_missing_is_named_with_the_way_to_get_it(forgetless: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    version = metadata.version

    def altered(name: str) -> str:
        if name == "timm":
            raise metadata.PackageNotFoundError
        return "0.1" if name == "peft" else version(name)

    monkeypatch.setattr(metadata, "version", altered)
    monkeypatch.setitem(sys.modules, "forgetless.protect.optimizers._pull", None)
    done = forgetless("doctor", "--json")
    assert done.exit_code == 0, done.stderr  # an extra, and C code that torch's operations stand in for
    found = json.loads(done.stdout)
    extras = {part["name"]: part for part in found["extras"]}
    assert extras["timm"]["missing"] == "timm (not installed)"
    assert extras["timm"]["advice"] == 'pip install "forgetless[timm]"'
    assert extras["peft"]["missing"].startswith("peft (needs >=")
    compiled = {part["name"]: part["missing"] for part in found["compiled"]}
    assert compiled["the proximal step"].startswith("not compiled")


def test_a_compiler_is_told_of(forgetless: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "forgetless.protect.optimizers._pull", None)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    parts = {part["name"]: part for part in json.loads(forgetless("doctor", "--json").stdout)["compiled"]}
    assert parts["C compiler"]["found"].startswith("none")
    assert parts["the proximal step"]["advice"].startswith("install a C compiler, then pip install")
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    parts = {part["name"]: part for part in json.loads(forgetless("doctor", "--json").stdout)["compiled"]}
    assert parts["C compiler"]["found"].startswith("/bin/")
    assert parts["the proximal step"]["advice"].startswith("pip install")


def test_a_package_whose_files_are_gone(forgetless: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    found = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name: None if name in {"safetensors", "peft"} else found(name))
    done = forgetless("doctor", "--json")
    assert done.exit_code == 1
    parts = json.loads(done.stdout)
    lost = [part for part in parts["always needed"] if part["missing"]]
    assert [part["name"] for part in lost] == ["safetensors"]
    assert lost[0]["missing"] == "installed, but its files are not found"
    assert lost[0]["advice"].startswith("pip install --force-reinstall")
    assert "peft (installed, but" in next(part["missing"] for part in parts["extras"] if part["name"] == "peft")


def test_what_is_always_needed_and_wrong_numbers_make_it_fail(
    forgetless: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = metadata.version
    with monkeypatch.context() as patched:
        patched.setattr(metadata, "version", lambda name: "1.0" if name == "torch" else version(name))
        done = forgetless("doctor", "--json")
    assert done.exit_code == 1
    broken = [part for part in json.loads(done.stdout)["always needed"] if part["missing"]]
    assert [part["name"] for part in broken] == ["torch"]
    assert broken[0]["advice"].startswith('pip install "torch>=')
    measured = reference.mas

    def doubled(*given: object, **more: object) -> Importance:
        found = measured(*given, **more)  # type: ignore[arg-type]
        return Importance({name: 2 * total for name, total in found.sums.items()}, found.count)

    monkeypatch.setattr(reference, "mas", doubled)
    done = forgetless("doctor")
    assert done.exit_code == 1
    assert "they must not" in done.stdout
