"""The house: who may import whom, what importing costs, what there is to use. Change the tables on purpose."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import forgetless

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "forgetless"

# A room is a file or a folder of src/forgetless, by its name. What it may use besides itself and these:
EVERYBODY_MAY_USE = {"errors", "parameters", "shapes"}
MAY_USE = {
    # what is measured
    "errors": "",
    "parameters": "",
    "shapes": "",
    "files": "distributed",
    "confidence": "distributed",
    "importance": "files confidence distributed",
    "data": "",
    "distributed": "data",
    "output": "data",
    # MEASURE
    "kernels": "",
    "engine": "kernels data confidence distributed",
    "measure": "engine distributed importance output data kernels",
    "reference": "importance output data",
    # PROTECT
    "hold": "",
    "attachments": "hold",
    "statistics": "",
    "probes": "data output",
    "pace": "data",
    "strength": "hold probes pace output statistics files",
    "meter": "probes pace output",
    "anchor": "importance distributed files attachments hold statistics strength",
    # LEARN
    "metrics": "",
    "heads": "",
    "task": "heads",
    "methods": "measure anchor importance heads task",
    "checkpoint": "files",
    "interrupts": "",
    "train": "task heads metrics checkpoint interrupts",
    # SHOW
    "results": "files metrics",
    "report": "files results",
    "sets": "files",
    "networks": "heads",
    "running": "forgetless files heads task train methods metrics results report sets strength",
    "experiments": "heads importance task train methods metrics results sets networks running",
    "studies": "forgetless experiments running networks sets task train heads methods measure strength metrics results "
    "report files importance",
    "cli": "forgetless importance methods train results report experiments networks running sets measure reference "
    "data",
    # the package itself: public names, and `python -m forgetless`
    "forgetless": "anchor importance measure reference meter statistics strength",
    "__main__": "cli",
}
# Third parties stay at the edge; torch may be used everywhere.
THIRD_PARTIES = {
    "safetensors": "files cli",
    "numpy": "kernels measure sets networks running cli",
    "rich": "engine report cli",
    "typer": "cli",
    "jinja2": "report",
    "matplotlib": "studies",
    "torchvision": "cli sets networks experiments",
    "PIL": "sets",
    "pyarrow": "sets",
    "mlxtend": "experiments studies",
    "jaxtyping": "shapes",
}
# Folders whose files all answer one question with one signature, and what in them is not such a file.
OPEN_LISTS: dict[str, set[str]] = {
    "kernels": {"native", "rule", "terms"},
    "measure": {"measurement", "draws", "normalised", "kinks", "verification"},
    "attachments": {"attachment", "forms", "move", "native"},
    "strength": {"dial"},
    "methods": {"anchored", "composed", "distilled", "memory", "replaying"},
    "report": set(),
    "sets": {"cache", "download", "entry", "folder", "pictures"},
    "networks": {"normalize"},
    "experiments": {"comparison", "digits", "images", "omega", "pairs", "paper", "splitting"},
    "studies": {"eight_figures", "eight_sections", "figures", "held"},
    "cli": {"models"},
}
NO_ROOM_IS_CALLED = {"utils", "util", "helpers", "helper", "common", "core", "base", "misc", "manager", "handler"}
COMPILED = {"forgetless.measure.kernels.parts._modulus", "forgetless.protect.optimizers._pull"}
NOT_LOADED = {"torchvision", "transformers", "lightning", "avalanche", "accelerate", "matplotlib", "plotly"}


def module_name(path: Path) -> str:
    """`forgetless.measure.kernels.linear` for `src/forgetless/kernels/linear.py`; a package has the name of its folder."""
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(SOURCE.rglob("*.py"))}


def room(module: str) -> str:
    return [*module.split("."), "forgetless"][1]


@cache
def imports(module: str) -> frozenset[str]:
    """What a module imports, now or later: modules of the house by their full name, others by their first."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are written from the root"
            named = {f"{node.module}.{name.name}" for name in node.names}
            found |= {each if each in MODULES else str(node.module) for each in named - COMPILED}
    return frozenset(each if each in MODULES else each.split(".")[0] for each in found) - {module}


def house(module: str) -> set[str]:
    return {each for each in imports(module) if each in MODULES}


def complaints_about_arrows() -> list[str]:
    return [
        f"{module} imports {used}: let {room(module)!r} use {room(used)!r} in MAY_USE, or do without"
        for module in MODULES
        for used in sorted(house(module))
        if room(used) not in {room(module), *EVERYBODY_MAY_USE, *MAY_USE.get(room(module), "").split()}
    ]


def complaints_about_siblings() -> list[str]:
    def listed(module: str) -> bool:
        parts = module.split(".")
        return len(parts) == 3 and parts[1] in OPEN_LISTS and parts[2] not in OPEN_LISTS[parts[1]]

    return [
        f"{module} imports its sibling {used}"
        for module in filter(listed, MODULES)
        for used in sorted(house(module))
        if listed(used) and room(used) == room(module)
    ]


def complaints_about_third_parties() -> list[str]:
    own = {"forgetless", "torch", "__future__", *sys.stdlib_module_names}
    return [
        f"{module} imports {used}: it belongs to {THIRD_PARTIES.get(used, 'nobody')}"
        for module in MODULES
        for used in sorted(imports(module) - own - MODULES.keys())
        if room(module) not in THIRD_PARTIES.get(used, "").split()
    ]


def test_every_room_is_in_the_table() -> None:
    assert {room(module) for module in MODULES} == MAY_USE.keys()


def test_the_table_names_no_room_that_is_not_there() -> None:
    named = {used for allowed in MAY_USE.values() for used in allowed.split()}
    assert named <= MAY_USE.keys()
    assert OPEN_LISTS.keys() <= MAY_USE.keys()


def test_arrows() -> None:
    assert complaints_about_arrows() == []


def test_siblings_in_an_open_list_do_not_know_each_other() -> None:
    assert complaints_about_siblings() == []


def test_third_parties_stay_at_the_edge() -> None:
    assert complaints_about_third_parties() == []


def test_no_circle() -> None:
    try:
        TopologicalSorter({module: house(module) for module in MODULES}).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


def test_the_reference_shares_no_code_with_what_it_is_a_witness_of() -> None:
    reached, open_ends = set(), {"forgetless.reference"}
    while open_ends:
        module = open_ends.pop()
        reached.add(module)
        open_ends |= house(module) - reached - {"forgetless"}
    assert {room(module) for module in reached}.isdisjoint({"kernels", "engine", "measure"})


def test_only_the_command_line_knows_the_experiments_and_nobody_the_studies() -> None:
    def users(of: str) -> set[str]:
        return {room(module) for module in MODULES for used in house(module) if room(used) == of}

    assert users("experiments") == {"cli", "experiments", "studies"}
    assert users("studies") == {"studies"}


def test_every_room_says_by_its_name_what_it_holds() -> None:
    assert NO_ROOM_IS_CALLED.isdisjoint(part for module in MODULES for part in module.split("."))


@pytest.mark.parametrize(
    ("line", "complaints", "said"),
    [
        (
            "from forgetless.protect.anchor import Anchor",
            complaints_about_arrows,
            "forgetless.metrics imports forgetless.protect.anchor",
        ),
        ("def f():\n    from forgetless import studies", complaints_about_arrows, "imports forgetless.studies"),
        ("import forgetless.learn.train", complaints_about_arrows, "imports forgetless.learn.train"),
        ("import numpy.linalg as la", complaints_about_third_parties, "forgetless.metrics imports numpy"),
        ("from pandas import DataFrame", complaints_about_third_parties, "it belongs to nobody"),
    ],
)
def test_these_tests_see_an_arrow_that_is_wrong(
    line: str, complaints: object, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert callable(complaints)
    (tmp_path / "metrics.py").write_text(line + "\n")
    monkeypatch.setitem(MODULES, "forgetless.metrics", tmp_path / "metrics.py")
    imports.cache_clear()
    try:
        assert any(said in complaint for complaint in complaints())
    finally:
        imports.cache_clear()


def loaded_by(code: str) -> set[str]:
    """The modules that are loaded in a new process after `code`."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport json, sys\nprint(json.dumps(list(sys.modules)))"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


USE_EVERYTHING = "import forgetless\nfor name in forgetless.__all__: getattr(forgetless, name)"


def test_the_library_costs_little_more_than_torch() -> None:
    torch, everything = loaded_by("import torch"), loaded_by(USE_EVERYTHING)
    assert len(everything - torch) <= 0.2 * len(torch)
    foreign = {module.split(".")[0] for module in everything - torch} - set(sys.stdlib_module_names)
    assert {name for name in foreign if not name.startswith("_")} <= {"forgetless", "numpy", "safetensors", "torch"}


def test_the_library_loads_no_framework() -> None:
    loaded = {module.split(".")[0] for module in loaded_by(USE_EVERYTHING)}
    assert loaded.isdisjoint(NOT_LOADED | {"typer", "rich", "jinja2"})


def test_the_command_line_answers_before_torch_is_loaded() -> None:
    loaded = loaded_by("import forgetless.cli")
    assert {module.split(".")[0] for module in loaded}.isdisjoint({"torch", "numpy", "jinja2"})
    assert "forgetless.lab.experiments" not in loaded


def test_every_public_name_is_documented() -> None:
    told = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in forgetless.__all__:
        assert getattr(forgetless, name).__doc__, name
        assert f"forgetless.{name}" in told, f"README.md does not mention forgetless.{name}"


def test_the_readme_has_a_phrase_for_every_room() -> None:
    told = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in sorted(MAY_USE.keys() - {"forgetless", "__main__"}):
        file = f"{name}/" if (SOURCE / name).is_dir() else f"{name}.py"
        assert f" {file} " in told, f"README.md has no phrase for {file}"


def test_every_room_has_tests_of_the_same_name() -> None:
    tests = {path.name for path in (ROOT / "tests").iterdir()}
    for name in sorted(MAY_USE.keys() - {"forgetless", "__main__", "errors"}):
        assert tests & {name, f"test_{name}.py"}, f"tests/ has neither test_{name}.py nor {name}/"
