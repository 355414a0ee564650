"""The catalog against itself, and against the real small sets where they are at hand."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

import pytest

from forgetless.errors import ForgetlessError
from forgetless.lab import datasets
from forgetless.lab.datasets import CATALOG, entry
from forgetless.lab.experiments.eight_tasks import TASKS
from forgetless.lab.experiments.mas_2018 import TASKS as PAPERS

SHARED = Path(__file__).parents[4] / "shared" / "data" / "vision"


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared image datasets (../shared/data/vision) are not here")
@pytest.mark.parametrize("name", [name for name, each in CATALOG.items() if each.listing])
def test_the_real_small_sets_are_what_the_catalog_says(name: str) -> None:
    found = entry(name)
    assert found.sum(found.load(SHARED)) == found.listing


def test_every_task_has_its_set() -> None:
    assert set(TASKS) <= set(CATALOG)
    assert set(PAPERS.values()) <= set(CATALOG)


@pytest.mark.parametrize("name", CATALOG)
def test_every_entry_says_how_to_get_it_and_downloads_inside_the_root(name: str) -> None:
    found = CATALOG[name]
    assert found.license
    assert found.page
    assert found.sources or found.otherwise
    for source in found.sources:
        assert source.url.startswith("https://") or (source.checksum or "").startswith("sha256:")
        assert not Path(source.path).is_absolute()
        assert ".." not in Path(source.path).parts
        kind, _, digits = (source.checksum or "sha256:" + "0" * 64).partition(":")
        assert len(digits) == {"md5": 32, "sha256": 64}[kind]
        assert (source.unpack is None) == (not source.path.startswith("archives/"))


def test_the_list_is_open_and_holds_nothing_else() -> None:
    modules = [each.name for each in pkgutil.iter_modules(datasets.__path__) if not each.ispkg]
    found = [importlib.import_module(f"{datasets.__name__}.{name}").ENTRY for name in modules]
    assert sorted(entry.name for entry in found) == sorted(CATALOG)


def test_only_one_file_is_unpinned() -> None:
    found = [source.url for each in CATALOG.values() for source in each.unpinned()]
    assert found == ["https://groups.csail.mit.edu/vision/LabelMe/NewImages/indoorCVPR_09.tar"]


def test_an_unknown_set() -> None:
    with pytest.raises(ForgetlessError, match="no dataset is called 'nothing'; there are 'flowers102'"):
        entry("nothing")
