from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import layouts
from cli.conftest import Command
from forgetless.lab import datasets
from forgetless.lab.datasets.reading.entry import Source
from host import CONTENT, SHA256, Host

Refused = Callable[..., None]
ENTRY = dataclasses.replace(datasets.CATALOG["cub200"], name="small", title="Two Birds", classes=2, train=2, test=1)


@pytest.fixture(autouse=True)
def _a_small_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(datasets.CATALOG, "small", ENTRY)


def test_list_names_every_set_and_says_what_is_there(forgetless: Command) -> None:
    layouts.cub200(Path("data"))
    rows = {row["name"]: row for row in json.loads(forgetless("data", "list", "--json").stdout)}
    assert list(rows) == list(datasets.CATALOG)
    assert [name for name, row in rows.items() if row["there"]] == ["cub200", "small"]
    shown = forgetless("data", "list").stdout
    assert all(name in shown for name in rows)


@pytest.mark.parametrize("name", datasets.CATALOG)
def test_where_says_what_a_set_needs_and_under_which_terms(forgetless: Command, name: str) -> None:
    entry = datasets.CATALOG[name]
    done = forgetless("data", "where", name, "--root", "r")
    assert done.exit_code == 0, done.stderr
    for known in (
        entry.title,
        entry.license,
        entry.page,
        f"r/{entry.layout}",
        *(source.url for source in entry.sources),
    ):
        assert known in done.stdout
    facts = json.loads(forgetless("data", "where", name, "--json").stdout)
    assert [file["url"] for file in facts["files"]] == [source.url for source in entry.sources]


def test_check_tells_counts_classes_and_the_listing(forgetless: Command) -> None:
    folder = layouts.cub200(Path("data"))
    facts = json.loads(forgetless("data", "check", "small", "--pictures", "--json").stdout)
    expected = ENTRY.sum(ENTRY.read(folder))
    assert facts == {
        "name": "small",
        "classes": ["001.Black_footed_Albatross", "002.Auk"],
        "train": 2,
        "test": 1,
        "listing": expected,
        "decoded": True,
    }
    assert forgetless("data", "check", "small").stdout == (
        "Two Birds in data/CUB_200_2011: 2 + 1 pictures of 2 classes\n"
        "classes: 001.Black_footed_Albatross, 002.Auk\n"
        f"listing: {expected}, there is none to compare it with\n"
        "counts:  as published\n"
    )


def test_check_refuses_what_is_not_the_set(
    forgetless: Command, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused(
        "no dataset is called 'birds200'; there are " + ", ".join(map(repr, datasets.CATALOG)) + ".",
        "data", "check", "birds200",
    )  # fmt: skip
    refused(
        "data lacks Two Birds: " + ENTRY.layout + "; `forgetless data fetch small --root data` downloads it "
        "(https://www.vision.caltech.edu/datasets/cub_200_2011/).",
        "data", "check", "small",
    )  # fmt: skip
    folder = layouts.cub200(Path("data"))
    found = ENTRY.sum(ENTRY.read(folder))
    monkeypatch.setitem(datasets.CATALOG, "small", dataclasses.replace(ENTRY, listing="0" * 16))
    refused(
        "data/CUB_200_2011 lists other pictures or labels than Two Birds has: the checksum of its listing is "
        f"{found} and not 0000000000000000.",
        "data", "check", "small",
    )  # fmt: skip
    monkeypatch.setitem(datasets.CATALOG, "small", dataclasses.replace(ENTRY, listing=found))
    assert f"listing: {found}, as it should be\n" in forgetless("data", "check", "small").stdout
    (folder / "images" / "002.Auk" / "A_1.jpg").write_bytes(b"no picture")
    assert forgetless("data", "check", "small").exit_code == 0
    done = forgetless("data", "check", "small", "--pictures")
    assert done.exit_code == 2
    assert done.stderr.startswith("forgetless: 002.Auk/A_1.jpg is no picture that can be read: ")


def test_fetch_downloads_goes_on_and_tells_the_checksum(forgetless: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host()
    thread = threading.Thread(target=host.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        entry = dataclasses.replace(ENTRY, sources=(Source(f"{host.url}/a", "small/a"),))
        monkeypatch.setitem(datasets.CATALOG, "small", entry)
        host.cut = 5
        done = forgetless("data", "fetch", "small", "--root", "r")
        assert done.exit_code == 2
        assert done.stderr.endswith("cannot be verified; --unpinned downloads and unpacks it all the same.\n")
        done = forgetless("data", "fetch", "small", "--root", "r", "--unpinned")
        assert (done.exit_code, done.stdout) == (2, "")
        assert "was cut off after 5 of" in done.stderr
        host.cut = None
        done = forgetless("data", "fetch", "small", "--root", "r", "--unpinned")
        assert done.exit_code == 0, done.stderr
        assert done.stdout == (
            f"r/small/a: done, SHA-256 {SHA256} (no checksum is published to compare it with)\n"
            "check it with: forgetless data check small --root r\n"
        )
        assert Path("r/small/a").read_bytes() == CONTENT
        assert "there already" in forgetless("data", "fetch", "small", "--root", "r", "--unpinned").stdout
        found = json.loads(forgetless("data", "fetch", "small", "--root", "r", "--unpinned", "--json").stdout)
        assert found == {"name": "small", "files": [{"file": "r/small/a", "there": True, "sha256": SHA256}]}
        assert host.asked == [None, "bytes=5-"]
    finally:
        host.shutdown()
        host.server_close()
        thread.join()


def test_fetch_of_what_cannot_be_downloaded(refused: Refused) -> None:
    entry = datasets.CATALOG["cars196"]
    refused(
        f"Stanford Cars has no file that can be downloaded directly: {entry.otherwise} ({entry.page}).",
        "data", "fetch", "cars196",
    )  # fmt: skip
