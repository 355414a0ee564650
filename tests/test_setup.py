"""`scripts/setup.sh` with false programs on its PATH: what it does, and what it says when something is missing."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOOLS = ("sh", "awk", "cat", "cksum", "dirname", "grep", "mkdir", "rm", "touch")

# A Python of version $1 that has ($2 = yes) or lacks the venv module and whose pip ends as $3 says.
PYTHON = """#!/bin/sh
echo "{name} $*" >>"$CLONE/calls"
case "$*" in
    *"%d.%d"*) echo {version} ;;
    *"sys.exit(sys.version_info"*) {new_enough} ;;
    *"import ensurepip"*) {venv} ;;
    *"-m venv"*) mkdir -p .venv/bin; cat "$0" >.venv/bin/python; chmod +x .venv/bin/python ;;
    *"pip --version"*) [ -x .venv/bin/python ] ;;
    *"pip install"*) {pip} ;;
    *version*torch*) false ;;
esac
"""


class Clone:
    """A copy of what `setup.sh` reads, and a PATH with nothing but what the test puts there."""

    def __init__(self, root: Path) -> None:
        self.root, self.bin = root / "a clone", root / "bin"
        (self.root / "scripts").mkdir(parents=True)
        self.bin.mkdir()
        shutil.copy(ROOT / "scripts" / "setup.sh", self.root / "scripts")
        shutil.copy(ROOT / "pyproject.toml", self.root)
        for tool in (*TOOLS, "chmod"):
            (self.bin / tool).symlink_to(str(shutil.which(tool)))
        self.free(50_000)
        self.program("uname", "#!/bin/sh\necho Linux x86_64\n")

    def program(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def free(self, megabytes: int) -> None:
        self.program("df", f"#!/bin/sh\necho head\necho disk 0 0 {1024 * megabytes} 0% /\n")

    def python(self, name: str, version: str, *, venv: bool = True, pip: str = "true") -> None:
        new_enough = tuple(map(int, version.split("."))) >= (3, 11)
        says = {True: "true", False: "false"}
        text = PYTHON.format(name=name, version=version, new_enough=says[new_enough], venv=says[venv], pip=pip)
        self.program(name, text)

    def setup(self, extra: str = "demo", **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", str(self.root / "scripts" / "setup.sh"), extra],
            env={"PATH": str(self.bin), "CLONE": str(self.root), "HOME": str(self.root / "home"), **environment},
            cwd=self.root.parent,
            capture_output=True,
            text=True,
        )

    def calls(self) -> list[str]:
        log = self.root / "calls"
        return log.read_text().splitlines() if log.exists() else []


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


def refused(done: subprocess.CompletedProcess[str], sentence: str) -> None:
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"setup: {sentence}"


def test_installs_the_extra_into_the_clone(clone: Clone) -> None:
    clone.python("python3", "3.11")
    done = clone.setup("demo")
    assert done.returncode == 0, done.stderr
    install = next(call for call in clone.calls() if "pip install" in call)
    assert "--no-cache-dir" in install
    assert "--editable .[demo]" in install
    assert (clone.root / ".venv" / "ready-demo").exists()


def test_a_second_time_does_nothing(clone: Clone) -> None:
    clone.python("python3", "3.11")
    clone.setup()
    before = clone.calls()
    done = clone.setup()
    assert (done.returncode, done.stderr, clone.calls()) == (0, "", before)


def test_other_dependencies_are_installed_again(clone: Clone) -> None:
    clone.python("python3", "3.11")
    clone.setup()
    with (clone.root / "pyproject.toml").open("a") as file:
        file.write("# changed\n")
    clone.setup()
    assert sum("pip install" in call for call in clone.calls()) == 2
    assert sum("-m venv" in call for call in clone.calls()) == 1


def test_a_moved_clone_is_installed_again(clone: Clone) -> None:
    clone.python("python3", "3.11")
    clone.setup()
    clone.root = clone.root.rename(clone.root.with_name("moved"))
    clone.setup()
    assert sum("pip install" in call for call in clone.calls()) == 2


def test_another_extra_is_installed_too(clone: Clone) -> None:
    clone.python("python3", "3.11")
    clone.setup("demo")
    clone.setup("dev")
    assert "--editable .[dev]" in clone.calls()[-1]


def test_takes_the_first_python_that_is_new_enough(clone: Clone) -> None:
    clone.python("python3", "3.9")
    clone.python("python3.13", "3.13", venv=False)
    clone.python("python3.12", "3.12")
    assert clone.setup().returncode == 0
    assert next(call for call in clone.calls() if "-m venv" in call).startswith("python3.12 ")


def test_takes_the_python_it_is_given(clone: Clone) -> None:
    clone.python("python3", "3.11")
    clone.python("python3.14", "3.14")
    assert clone.setup(PYTHON="python3.14").returncode == 0
    assert next(call for call in clone.calls() if "-m venv" in call).startswith("python3.14 ")


def test_no_python(clone: Clone) -> None:
    sentence = "Python 3.11 or newer is needed; install it (on Debian: apt install python3 python3-venv)."
    refused(clone.setup(), sentence)
    assert not (clone.root / ".venv").exists()


def test_old_python(clone: Clone) -> None:
    clone.python("python3", "3.9")
    refused(
        clone.setup(),
        "Python 3.11 or newer is needed and python3 is 3.9; install it (on Debian: apt install python3 python3-venv).",
    )


def test_no_venv_module(clone: Clone) -> None:
    clone.python("python3", "3.12", venv=False)
    sentence = "Python 3.12 has no venv module; install it (on Debian: apt install python3.12-venv)."
    refused(clone.setup(), sentence)


def test_small_disk(clone: Clone) -> None:
    clone.python("python3", "3.11")
    clone.free(5000)
    sentence = "5000 MB are free here and PyTorch needs about 8000; free some, or set NEEDS_MB if you know better."
    refused(clone.setup(), sentence)
    assert not (clone.root / ".venv").exists()
    assert clone.setup(NEEDS_MB="1000").returncode == 0


PIP_SAYS = "echo '{}' >.cache/setup.log; false"


def test_no_network(clone: Clone) -> None:
    clone.python("python3", "3.11", pip=PIP_SAYS.format("WARNING: Retrying after NameResolutionError"))
    sentence = "the package registry was not reached; is there a network, or a mirror to name in PIP_INDEX_URL?"
    refused(clone.setup(), sentence)


def test_disk_fills_up(clone: Clone) -> None:
    clone.python("python3", "3.11", pip=PIP_SAYS.format("ERROR: [Errno 28] No space left on device"))
    refused(clone.setup(), "the disk is full; free some space and run the same command again.")


def test_pip_fails_otherwise_and_the_next_time_tries_again(clone: Clone) -> None:
    clone.python("python3", "3.11", pip=PIP_SAYS.format("ERROR: ResolutionImpossible"))
    sentence = "pip could not install the packages; its reasons are above and in .cache/setup.log."
    refused(clone.setup(), sentence)
    refused(clone.setup(), sentence)
    assert sum("pip install" in call for call in clone.calls()) == 2


def test_writes_nothing_outside_the_clone(clone: Clone) -> None:
    clone.python("python3", "3.11")
    before = set(clone.root.parent.rglob("*")) - set(clone.root.rglob("*"))
    clone.setup()
    assert set(clone.root.parent.rglob("*")) - set(clone.root.rglob("*")) == before


def test_the_readiness_of_a_clone_covers_everything_that_is_built() -> None:
    script = (ROOT / "scripts" / "setup.sh").read_text()
    sources = {path for path in (ROOT / "src").rglob("*") if path.suffix in {".c", ".h"}}
    assert all(f"{path.parent.relative_to(ROOT).as_posix()}/*{path.suffix}" in script for path in sources)
