"""The catalog against itself, and against the real small sets where they are at hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from forgetless.errors import ForgetlessError
from forgetless.lab.datasets import CATALOG, entry, small
from forgetless.lab.experiments.eight_tasks import TASKS
from forgetless.lab.experiments.mas_2018 import TASKS as PAPERS

SHARED = Path(__file__).parents[4] / "shared" / "data" / "vision"


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared picture sets (../shared/data/vision) are not here")
@pytest.mark.parametrize("name", [each.name for each in small.ENTRIES])
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
        assert source.url.startswith(("https://", "http://"))
        assert not Path(source.path).is_absolute()
        assert ".." not in Path(source.path).parts
        kind, _, digits = (source.checksum or "md5:" + "0" * 32).partition(":")
        assert len(digits) == {"md5": 32, "sha256": 64}[kind]
        assert (source.unpack is None) == (not source.path.startswith("archives/"))


def test_an_unknown_set() -> None:
    with pytest.raises(ForgetlessError, match="there is no picture set 'nothing'; there are 'flowers102'"):
        entry("nothing")
