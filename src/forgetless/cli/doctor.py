"""`forgetless doctor`: what is installed, what it can use, and how to get what is missing."""

from __future__ import annotations

import functools
import platform
import shlex
import shutil
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata, util
from typing import TYPE_CHECKING

import typer

from forgetless.cli.parts.output import AsJson, print_json

if TYPE_CHECKING:
    from packaging.requirements import Requirement

_COMPILED = {
    "forgetless.measure.kernels.parts._modulus": "the modulus of per-sample gradients",
    "forgetless.protect.optimizers._pull": "the proximal step",
}
_NOT_FOR_USERS = frozenset({"dev", "docs", "peers", "figures"})


@dataclass(frozen=True)
class _Part:
    """Something that is there, or not.

    Attributes:
        name: what it is.
        found: what of it is there: a version, a device.
        missing: what is not; empty where nothing is.
        advice: how to get it; empty where nothing is missing.
    """

    name: str
    found: str
    missing: str = ""
    advice: str = ""


def doctor(as_json: AsJson = False) -> None:
    """Show what is installed, what it can use, and how to get what is missing.

    ```
    forgetless doctor
    forgetless doctor --json > report.json
    ```

    Ω of a small network is also measured by the fast path and one sample at a time. The exit code is 1 where the two
    differ or a package that is always needed is missing; extras may be missing.
    """
    parts = {
        "always needed": list(_packages(None)),
        "compiled": list(_compiled()),
        "devices": list(_devices()),
        "extras": [part for extra in _extras() for part in [_extra(extra)]],
        "exactness": [_exactness()],
    }
    broken = any(part.missing for group in ("always needed", "exactness") for part in parts[group])
    if as_json:
        found = {group: [asdict(part) for part in found] for group, found in parts.items()}
        print_json({"whole": not broken, **found})
    else:
        _show(parts)
    if broken:
        raise typer.Exit(1)


def _requirements(extra: str | None) -> Iterator[Requirement]:
    """What an extra needs, those of other extras that it includes among them; None: what is always needed."""
    from packaging.requirements import Requirement

    for text in metadata.requires("forgetless") or ():
        requirement = Requirement(text)
        always = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if extra is None:
            if always:
                yield requirement
        elif not always and requirement.marker is not None and requirement.marker.evaluate({"extra": extra}):
            if requirement.name == "forgetless":
                for other in requirement.extras:
                    yield from _requirements(other)
            else:
                yield requirement


def _extras() -> list[str]:
    names = metadata.metadata("forgetless").get_all("Provides-Extra") or []
    return [name for name in names if name not in _NOT_FOR_USERS]


def _packages(extra: str | None) -> Iterator[_Part]:
    """Each package that is needed, in the version that is there."""
    if extra is None:
        import forgetless

        yield _Part("forgetless", forgetless.__version__)
        yield _Part("python", platform.python_version())
    for requirement in _requirements(extra):
        advice = f'pip install "{requirement.name}{requirement.specifier}"'
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            yield _Part(requirement.name, "", "not installed", advice)
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            yield _Part(requirement.name, version, f"needs {requirement.specifier}", advice)
        elif not _is_found(requirement.name):
            advice = f'pip install --force-reinstall "{requirement.name}{requirement.specifier}"'
            yield _Part(requirement.name, version, "installed, but its files are not found", advice)
        else:
            yield _Part(requirement.name, version)


def _is_found(package: str) -> bool:
    """Whether an installed package has a module that `import` finds; it is not imported, which takes long for some."""
    from packaging.utils import canonicalize_name

    for module in _modules().get(canonicalize_name(package), ()):
        try:
            if util.find_spec(module) is not None:
                return True
        except (ImportError, ValueError):
            continue
    return False


@functools.cache
def _modules() -> Mapping[str, list[str]]:
    """The modules of every package that is installed."""
    from packaging.utils import canonicalize_name

    found: dict[str, list[str]] = {}
    for module, packages in metadata.packages_distributions().items():
        for package in packages:
            found.setdefault(canonicalize_name(package), []).append(module)
    return found


def _extra(name: str) -> _Part:
    parts = list({part.name: part for part in _packages(name)}.values())  # extras that it includes may share one
    lacking = [part for part in parts if part.missing]
    found = ", ".join(f"{part.name} {part.found}" for part in parts if not part.missing)
    missing = ", ".join(f"{part.name} ({part.missing})" for part in lacking)
    return _Part(name, found, missing, f'pip install "forgetless[{name}]"' if lacking else "")


def _compiled() -> Iterator[_Part]:
    from importlib import import_module

    named = shlex.split(sysconfig.get_config_var("CC") or "")[:1]  # what Python was built with
    compiler = next(filter(None, map(shutil.which, [*named, "cc", "gcc", "clang", "cl"])), None)
    for module, what in _COMPILED.items():
        try:
            import_module(module)
        except ImportError:
            advice = "pip install --force-reinstall --no-deps ., in the clone"
            advice = advice if compiler else f"install a C compiler, then {advice}"
            yield _Part(what, "by torch's operations", "not compiled; slower, with the same numbers", advice)
        else:
            yield _Part(what, "compiled")
    yield _Part("C compiler", compiler or "none; it is needed at installation only")


def _devices() -> Iterator[_Part]:
    import torch

    yield _Part("cpu", f"{torch.get_num_threads()} threads")
    for number in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(number)
        yield _Part(f"cuda:{number}", f"{properties.name}, {properties.total_memory >> 30} GiB")
    if torch.backends.mps.is_available():
        yield _Part("mps", "available")


def _exactness() -> _Part:
    """The largest difference between the fast path and one sample at a time, by the largest Ω."""
    import torch

    import forgetless

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
        samples = torch.randn(32, 8)
    fast, slow = forgetless.mas(network, samples).mean(), forgetless.reference.mas(network, samples).mean()
    apart = max(float((fast[name] - slow[name]).abs().max() / slow[name].abs().max()) for name in slow)
    name, found = "Ω of a small network, the fast path beside one sample at a time", f"differ by {apart:.0e}"
    if apart < 1e-5:
        return _Part(name, found)
    return _Part(name, found, "they must not", "report it, with the output of forgetless doctor --json")


def _show(parts: dict[str, list[_Part]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, pad_edge=False, show_header=False)
    shown.add_column("part", overflow="fold", max_width=28)
    shown.add_column("found", overflow="fold")
    for group, found in parts.items():
        shown.add_row(Text(group, style="bold"), "")
        for part in found:
            said = [Text(part.found), Text(part.missing, style="yellow"), Text(part.advice, style="dim")]
            shown.add_row(Text(f"  {part.name}"), Text("\n").join(filter(None, said)))
    Console().print(shown)
