"""The architecture: who may import whom, what importing costs, what there is to use. Change the tables on purpose."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import forgetless

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "forgetless"

# A folder's floor is its first level below src/forgetless. Floors use those below them, never those above.
FLOORS = {
    "errors": "",
    "model": "errors",
    "files": "model errors",
    "measure": "files model errors",
    "protect": "measure files model errors",
    "edit": "measure files model errors",
    "integrations": "protect measure files model errors",
    "learn": "protect measure files model errors",
    "lab": "learn integrations edit protect measure files model errors forgetless",
    "cli": "lab learn integrations edit protect measure files model errors forgetless",
    # the package itself: public names, and `python -m forgetless`
    "forgetless": "learn integrations edit protect measure errors",
    "__main__": "cli",
}
# Inside a floor: what each file or folder may use of its own floor.
INSIDE = {
    "files": {
        "places": "",
        "strict": "places",
        "lock": "places",
        "hub": "",
        "foreign": "places strict tensors",
        "sealed": "strict places",
        "streamed": "foreign lock places strict tensors",
        "typed": "",
        "verified": "places strict typed",
        "arrays": "verified",
        "tensors": "places strict verified",
    },
    "model": {
        "shapes": "",
        "parameters": "",
        "sharding": "",
        "collation": "",
        "batches": "collation",
        "masks": "batches",
        "documents": "batches masks",
        "outputs": "batches masks shapes",
        "ranks": "batches parameters sharding",
        "attributes": "",
        "admission": "parameters sharding",
        "network": "admission parameters ranks sharding",
        "restored": "attributes parameters sharding",
    },
    "measure": {
        "confidence": "",
        "card": "",
        "sharing": "card confidence",
        "importance": "confidence sharing",
        "selection": "importance",
        "reference": "importance",
        "kernels": "",
        "engine": "kernels confidence",
        "draws": "",
        "accumulator": "engine importance",
        "estimators": "accumulator engine kernels draws importance",
        "measurement": "accumulator estimators importance",
        "normalized": "importance",
        "verify": "estimators engine importance",
    },
    "protect": {
        "coded": "",
        "anchored_parameter": "coded",
        "batchnorm": "",
        "optimizers": "anchored_parameter coded",
        "forgetting": "",
        "strength": "forgetting batchnorm anchored_parameter coded",
        "identity": "anchored_parameter",
        "watch": "optimizers",
        "frozen": "optimizers",
        "scaled_rates": "frozen optimizers",
        "stored_weights": "",
        "anchor_file": "anchored_parameter coded",
        "accumulation": "",
        "status": "",
        "old_model": "forgetting",
        "distillation": "anchor_file forgetting old_model optimizers",
        "anchor": "anchor_file identity watch accumulation status optimizers strength batchnorm anchored_parameter "
        "coded stored_weights",
    },
    "edit": {
        "blocks": "",
        "noise": "",
        "spectrum": "",
        "difference": "blocks noise spectrum",
        "weight": "difference",
        "repairing": "weight blocks",
        "checkpoint": "blocks",
        "adapter": "blocks checkpoint",
        "omegas": "blocks checkpoint",
        "rewritten": "checkpoint",
        "repair": "adapter checkpoint omegas repairing rewritten versions weight",
        "merging": "blocks",
        "versions": "blocks checkpoint",
        "weighing": "blocks omegas versions",
        "combination": "blocks checkpoint merging versions weighing",
        "merge": "adapter checkpoint combination rewritten versions",
        "merge_recipe": "",
    },
    "integrations": {
        "parts": "",
        "avalanche": "parts",
        "lightning": "parts",
        "transformers": "parts",
        "peft": "parts",
        "torchvision": "",
        "loggers": "parts",
    },
    "learn": {
        "metrics": "",
        "interrupts": "",
        "seeding": "",
        "rows": "",
        "optimizers": "",
        "network": "",
        "heads": "network",
        "samples": "rows seeding",
        "objective": "network samples",
        "retrieval": "",
        "facts": "retrieval objective network samples",
        "task": "objective samples",
        "warm_start": "network samples",
        "classification": "warm_start task objective network samples",
        "recipe": "optimizers",
        "method": "task network samples",
        "families": "method task objective network samples",
        "streaming": "families checkpoint evaluation position classification task network seeding interrupts metrics",
        "online_learners": "streaming families task network",
        "methods": "families method task network samples",
        "evaluation": "task network",
        "online": "families checkpoint samples",
        "position": "metrics",
        "checkpoint": "task network samples",
        "train": "checkpoint evaluation position method recipe task network samples seeding interrupts metrics",
    },
    "lab": {
        "published": "",
        "results": "",
        "kept": "",
        "traces": "kept",
        "report": "results published traces",
        "datasets": "",
        "networks": "",
        "running": "datasets kept published results report traces",
        "facts": "kept networks datasets results report",
        "long_text": "kept running networks datasets results report",
        "experiments": "long_text facts running networks datasets results published report",
        "finetuning": "datasets",
    },
    "cli": {
        "parts": "",
        "ask": "parts",
        "data": "parts",
        "doctor": "parts",
        "learn": "parts",
        "measure": "parts",
        "merge": "parts",
        "merge_importances": "parts",
        "repair": "parts",
        "report": "parts",
        "run": "parts",
        "verify": "parts",
        "watch": "parts",
        "write": "parts",
    },
}
# Third parties stay at the edge; torch may be used everywhere.
THIRD_PARTIES = {
    "safetensors": "files cli.parts",
    "huggingface_hub": "files.hub",
    "numpy": "files.arrays measure.draws measure.kernels edit.merging lab cli.parts",
    "yaml": "edit.merge_recipe",
    "rich": "measure.engine lab.report cli",
    "typer": "cli",
    "packaging": "cli.doctor",
    "jinja2": "lab.report",
    "scipy": "edit.spectrum lab",
    "torchvision": "cli.parts integrations.torchvision lab",
    "PIL": "lab.datasets lab.facts lab.report",
    "pyarrow": "lab.datasets lab.facts",
    "faiss": "lab.facts",
    "tokenizers": "lab.long_text",
    "mlxtend": "lab.experiments",
    "jaxtyping": "model.shapes",
    "peft": "integrations lab.finetuning",
    "bitsandbytes": "integrations.parts.dequantized",
    "transformers": "integrations.transformers lab.finetuning cli.parts",
    "lightning": "integrations.lightning",
    "avalanche": "integrations.avalanche",
    "timm": "cli.parts",
}
# Folders that hold nothing but files which answer one question with one signature; what they share has its own folder.
OPEN_LISTS = (
    "measure.kernels",
    "measure.estimators",
    "protect.optimizers.families",
    "edit.repairing",
    "edit.merging",
    "integrations",
    "integrations.loggers",
    "learn.methods",
    "learn.online_learners",
    "lab.datasets",
    "lab.networks",
    "lab.experiments",
    "lab.report.sections",
    "cli",
)
NO_ROOM_IS_CALLED = {"utils", "util", "helpers", "helper", "common", "core", "base", "misc", "manager", "handler"}
COMPILED = {"forgetless.measure.kernels.parts._modulus", "forgetless.protect.optimizers._pull"}
FRAMEWORKS = {"transformers", "lightning", "avalanche", "accelerate", "peft", "timm", "wandb", "trackio", "tensorboard"}
NOT_LOADED = {"torchvision", "matplotlib", "plotly"} | FRAMEWORKS


def module_name(path: Path) -> str:
    """`forgetless.files` for `src/forgetless/files.py`; a package has the name of its folder."""
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(SOURCE.rglob("*.py"))}


def floor(module: str) -> str:
    """`measure` for `forgetless.measure.engine.tape`; `forgetless` for the package itself."""
    return [*module.split("."), "forgetless"][1]


def room(module: str) -> str:
    """`measure.engine` for `forgetless.measure.engine.tape`; `errors` for `forgetless.errors`."""
    return ".".join(module.split(".")[1:3]) or "forgetless"


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
    def fine(module: str, used: str) -> bool:
        upper, lower = floor(module), floor(used)
        if upper != lower:
            return lower in FLOORS.get(upper, "").split()
        mine, other = (room(each).partition(".")[2] for each in (module, used))
        return mine == other or not mine or other in INSIDE.get(upper, {}).get(mine, "").split()

    return [
        f"{module} imports {used}: let {room(module)!r} use {room(used)!r} in the tables, or do without"
        for module in MODULES
        for used in sorted(house(module))
        if not fine(module, used)
    ]


def member_of(module: str) -> str | None:
    """The open list that a module is a member of."""
    folder, _, name = module.removeprefix("forgetless.").rpartition(".")
    return folder if folder in OPEN_LISTS and name and not MODULES[module].name.startswith("__") else None


def complaints_about_siblings() -> list[str]:
    return [
        f"{module} imports its sibling {used}"
        for module in filter(member_of, MODULES)
        for used in sorted(house(module))
        if member_of(used) == member_of(module)
    ]


# Where an open list's members are registered, if not in its own `__init__`.
REGISTERS = {"protect.optimizers.families": "protect.optimizers.forms"}


def registered(folder: str) -> set[str]:
    """The names that the register of an open list holds."""
    if folder == "integrations":  # a member has the name of the package that it serves
        return set(THIRD_PARTIES)
    if folder == "lab.networks":  # experiments import what they start from
        used = {each for module in MODULES if room(module) == "lab.experiments" for each in house(module)}
        return {each.rpartition(".")[2] for each in used if member_of(each) == folder}
    register = MODULES[f"forgetless.{REGISTERS.get(folder, folder)}"]
    return set(re.findall(r"\w+", register.read_text(encoding="utf-8")))


def strangers() -> list[str]:
    """Files of open lists that are no members."""
    members = [(module, folder) for module in MODULES if (folder := member_of(module))]
    return [module for module, folder in members if module.rpartition(".")[2] not in registered(folder)]


def complaints_about_third_parties() -> list[str]:
    own = {"forgetless", "torch", "__future__", *sys.stdlib_module_names}

    def fine(module: str, used: str) -> bool:
        inside = module.removeprefix("forgetless.") + "."
        return any(inside.startswith(f"{place}.") for place in THIRD_PARTIES.get(used, "").split())

    return [
        f"{module} imports {used}: it belongs to {THIRD_PARTIES.get(used, 'nobody')}"
        for module in MODULES
        for used in sorted(imports(module) - own - MODULES.keys())
        if not fine(module, used)
    ]


def test_every_floor_and_room_is_in_the_tables() -> None:
    assert {floor(module) for module in MODULES} == FLOORS.keys()
    for name, inside in INSIDE.items():
        assert {room(m).partition(".")[2] for m in MODULES if floor(m) == name} - {""} == inside.keys(), name


def test_the_tables_go_down() -> None:
    for table in (FLOORS, *INSIDE.values()):
        assert {used for allowed in table.values() for used in allowed.split()} <= table.keys()
        TopologicalSorter({name: allowed.split() for name, allowed in table.items() if name != "lab"}).prepare()


def test_the_top_of_the_tree_is_short() -> None:
    assert len([path for path in SOURCE.iterdir() if path.name != "__pycache__"]) <= 14


def test_arrows() -> None:
    assert complaints_about_arrows() == []


def test_members_of_an_open_list_do_not_know_each_other() -> None:
    assert complaints_about_siblings() == []


def test_an_open_list_holds_nothing_but_members() -> None:
    assert strangers() == []


@pytest.mark.parametrize("folder", OPEN_LISTS)
def test_a_file_that_is_no_member_is_seen(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "planted.py").touch()
    monkeypatch.setitem(MODULES, f"forgetless.{folder}.planted", tmp_path / "planted.py")
    assert strangers() == [f"forgetless.{folder}.planted"]


def test_third_parties_stay_at_the_edge() -> None:
    assert complaints_about_third_parties() == []


def test_no_circle() -> None:
    try:
        TopologicalSorter({module: house(module) for module in MODULES}).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


def test_the_reference_shares_no_code_with_what_it_checks() -> None:
    reached, open_ends = set(), {"forgetless.measure.reference"}
    while open_ends:
        module = open_ends.pop()
        reached.add(module)
        open_ends |= house(module) - reached - {"forgetless"}
    rooms = {"measure.kernels", "measure.engine", "measure.estimators", "measure.accumulator"}
    assert {room(module) for module in reached}.isdisjoint(rooms)


def test_only_the_command_line_knows_the_experiments() -> None:
    users = {room(module) for module in MODULES for used in house(module) if room(used) == "lab.experiments"}
    assert users <= {"cli.parts", "cli.report", "cli.run", "lab.experiments"}


# Where a module is tested that has no file of its own name: what several processes do is tested where they are started.
TESTED_ELSEWHERE = {"measure.engine.lockstep": "tests/model/test_ranks.py"}


def without_a_test() -> list[str]:
    """Modules of the engine and the kernels that have no test file of their name in the mirrored folder."""
    missing = []
    for module, path in MODULES.items():
        name = module.removeprefix("forgetless.")
        mirrored = name.startswith(("measure.engine.", "measure.kernels.")) and ".provenance." not in name
        if not mirrored or (path.name == "__init__.py" and path.parent.name == "parts"):
            continue
        folder, _, last = name.rpartition(".")
        file = ROOT / TESTED_ELSEWHERE.get(name, f"tests/{folder.replace('.', '/')}/test_{last}.py")
        if not file.exists():
            missing.append(f"{module}: {file.relative_to(ROOT)}")
    return missing


def test_every_module_of_the_engine_and_the_kernels_has_a_test_file() -> None:
    assert without_a_test() == []


def test_a_module_without_a_test_file_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODULES, "forgetless.measure.engine.planted", SOURCE / "measure" / "engine" / "planted.py")
    assert without_a_test() == ["forgetless.measure.engine.planted: tests/measure/engine/test_planted.py"]


def test_every_folder_says_by_its_name_what_it_holds() -> None:
    assert NO_ROOM_IS_CALLED.isdisjoint(part for module in MODULES for part in module.split("."))


@pytest.mark.parametrize(
    ("module", "line", "complaints", "said"),
    [
        (
            "learn.metrics",
            "from forgetless.lab.results import check",
            complaints_about_arrows,
            "forgetless.lab.results",
        ),
        ("measure.importance", "def f():\n    import forgetless.protect.anchor", complaints_about_arrows, "anchor"),
        ("model.batches", "from forgetless import files", complaints_about_arrows, "imports forgetless.files"),
        (
            "measure.kernels.linear",
            "import forgetless.measure.engine.tape",
            complaints_about_arrows,
            "'measure.engine'",
        ),
        (
            "learn.methods.mas",
            "import forgetless.learn.methods.si",
            complaints_about_siblings,
            "forgetless.learn.methods.si",
        ),
        ("learn.metrics", "import numpy.linalg as la", complaints_about_third_parties, "imports numpy: it belongs to"),
        ("learn.metrics", "from pandas import DataFrame", complaints_about_third_parties, "it belongs to nobody"),
    ],
)
def test_these_tests_see_an_arrow_that_is_wrong(
    module: str, line: str, complaints: object, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert callable(complaints)
    (tmp_path / "planted.py").write_text(line + "\n")
    monkeypatch.setitem(MODULES, f"forgetless.{module}", tmp_path / "planted.py")
    imports.cache_clear()
    try:
        assert any(f"forgetless.{module} imports" in each and said in each for each in complaints())
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


def test_the_pictures_of_a_fact_are_found_without_torch() -> None:
    loaded = {module.split(".")[0] for module in loaded_by("import forgetless.lab.facts.answers")}
    assert "numpy" in loaded
    assert loaded.isdisjoint({"torch", "scipy", "pandas", "PIL"})


def test_a_wheel_has_every_file_that_the_package_reads() -> None:
    """Whatever lies in the package and is neither Python nor the source of an extension module."""
    given = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["package-data"]
    packed = {path for pattern in given["forgetless"] for path in SOURCE.glob(pattern)}
    built = {".py", ".pyc", ".c", ".h", ".so", ".pyd"}
    read = {path for path in SOURCE.rglob("*") if path.is_file() and path.suffix not in built}
    assert read == packed


def test_every_public_name_is_documented() -> None:
    told = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in forgetless.__all__:
        assert getattr(forgetless, name).__doc__, name
        assert f"forgetless.{name}" in told, f"README.md does not mention forgetless.{name}"


TREES = [ROOT / "docs" / "architecture.md", ROOT / "README.md"]


def folders(page: Path) -> Iterator[tuple[str, bool, list[Path]]]:
    """The folders that a page's tree names: name, whether it is marked as an open list, and where it is."""
    tree = re.search(r"^```\w*\nsrc/forgetless/\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert tree is not None
    inside = SOURCE
    for line in tree[1].splitlines():
        for number, found in enumerate(re.finditer(r"(\w+)/(?=[ ,:;])(?: +(\*))?", line)):
            if number == 0 and found.start() in (0, 2):  # at the top of the repository or of the package
                inside = (SOURCE if found.start() else ROOT) / found[1]
            where = [inside, ROOT / found[1], *inside.rglob(found[1])]
            yield found[1], found[2] is not None, [each for each in where if each.is_dir() and each.name == found[1]]


@pytest.mark.parametrize("page", TREES, ids=lambda page: page.name)
def test_the_folders_of_a_tree_are_there(page: Path) -> None:
    found = list(folders(page))
    assert len(found) > 15
    assert [name for name, _, where in found if not where] == []


def test_the_tree_of_the_architecture_is_whole() -> None:
    """Every folder that a floor has is named, and the marked ones are the open lists that a test holds to be some."""
    named = {name for name, _, _ in folders(TREES[0])}
    held = [*SOURCE.glob("*/"), *SOURCE.glob("*/*/")]
    there = {path.name for path in held if path.is_dir() and (path / "__init__.py").exists()} - {"parts"}
    assert there - named == set()
    marked = {name for name, marked, _ in folders(TREES[0]) if marked}
    assert marked == {each.rpartition(".")[2] for each in OPEN_LISTS}


@pytest.mark.parametrize("page", [TREES[0], ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"], ids=lambda page: page.name)
def test_paths_that_pages_for_contributors_name_are_there(page: Path) -> None:
    homes = [
        ROOT / each for each in ("", "src", "src/forgetless", "src/forgetless/measure", "docs", "tests/lab/report")
    ]
    for name in re.findall(r"`([\w./-]+)`", page.read_text(encoding="utf-8")):
        if "/" in name.rstrip("/") or name.endswith((".py", ".md", ".toml", ".yml")):
            assert any((home / name).exists() for home in homes), name
