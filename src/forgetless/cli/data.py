"""`forgetless data`: which datasets there are, where to get each, whether it is complete, and downloading it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from forgetless.cli.parts.output import AsJson, print_json
from forgetless.errors import ForgetlessError

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown")

Root = Annotated[Path, typer.Option("--root", help="The folder that holds the datasets.")]
Name = Annotated[str, typer.Argument(help="A dataset of `forgetless data list`.", show_default=False)]


@app.callback()
def _root() -> None:
    """Datasets: which there are, where to get each, whether it is complete, and downloading it.

    ```
    forgetless data list
    forgetless data fetch flowers
    ```
    """


@app.command("list")
def list_(root: Root = Path("data"), as_json: AsJson = False) -> None:
    """List all datasets with their size and license, and whether their folder is there.

    ```
    forgetless data list
    forgetless data list --root /mnt/data --json
    ```
    """
    from forgetless.lab.datasets import CATALOG

    rows = [
        {
            "name": entry.name,
            "title": entry.title,
            "classes": entry.classes,
            "train": entry.train,
            "test": entry.test,
            "license": entry.license,
            "there": entry.path(root).is_dir(),
        }
        for entry in CATALOG.values()
    ]
    if as_json:
        print_json(rows)
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table("name", box=SIMPLE_HEAD, pad_edge=False)
    counts = ("classes", "train", "test")
    for key in counts:
        table.add_column(key, justify="right")
    table.add_column("there")
    table.add_column("license")
    for row in rows:
        numbers = ("–" if row[key] is None else f"{row[key]:,}" for key in counts)
        table.add_row(str(row["name"]), *numbers, "yes" if row["there"] else "no", str(row["license"]))
    Console().print(table)
    typer.echo("`forgetless data where NAME` says what a dataset is and how to get it.")
    typer.echo(f"there: in {root}/; `forgetless data check NAME` says whether it is complete.")


@app.command()
def where(name: Name, root: Root = Path("data"), as_json: AsJson = False) -> None:
    """Say what a dataset needs, where to get it, and under which terms.

    ```
    forgetless data where flowers
    ```
    """
    from forgetless.lab.datasets import entry

    found = entry(name)
    facts = {
        "set": found.title,
        "page": found.page,
        "terms": found.license,
        "needs": f"{root}/{found.layout}",
        "files": [
            {"url": source.url, "to": str(root / source.path), "checksum": source.checksum} for source in found.sources
        ],
    }
    if as_json:
        print_json(facts)
        return
    for key in ("set", "page", "terms", "needs"):
        typer.echo(f"{key + ':':7}{facts[key]}")
    for source in found.sources:
        typer.echo(
            f"file:  {source.url}\n       → {root / source.path}, {source.checksum or 'no checksum is published'}"
        )
    typer.echo(f"get:   {found.obtain(root)}.")


@app.command()
def check(
    name: Name,
    root: Root = Path("data"),
    pictures: Annotated[bool, typer.Option("--pictures", help="Decode every picture too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check that a dataset is complete: its classes, labels, counts and files, and the checksum of its listing.

    ```
    forgetless data check flowers
    forgetless data check flowers --pictures --json
    ```
    """
    from forgetless.lab.datasets import entry
    from forgetless.lab.datasets.reading.decoding import decode

    found = entry(name)
    parts = found.load(root)
    facts: dict[str, Any] = {
        "name": name,
        "classes": list(parts[0].classes),
        "train": len(parts[0].labels),
        "test": len(parts[1].labels),
        "listing": found.sum(parts),
    }
    if found.listing not in (None, facts["listing"]):
        raise ForgetlessError(
            f"{found.path(root)} lists other pictures or labels than {found.title} has: the checksum of its listing is "
            f"{facts['listing']} and not {found.listing}."
        )
    if pictures:
        for part in parts:
            decode(part, 8)
        facts["decoded"] = True
    if as_json:
        print_json(facts)
        return
    typer.echo(
        f"{found.title} in {found.path(root)}: {facts['train']} + {facts['test']} pictures of {found.classes} classes"
    )
    typer.echo(f"classes: {_some(parts[0].classes)}")
    known = "as it should be" if found.listing else "there is none to compare it with"
    typer.echo(f"listing: {facts['listing']}, {known}")
    typer.echo(f"counts:  {'as published' if found.train else 'not published'}")
    if pictures:
        typer.echo("pictures: all can be decoded")


@app.command()
def fetch(
    name: Name,
    root: Root = Path("data"),
    unpack: Annotated[bool, typer.Option("--unpack/--no-unpack", help="Unpack archives.")] = True,
    unpinned: Annotated[bool, typer.Option("--unpinned", help="Accept files without a published checksum.")] = False,
    as_json: AsJson = False,
) -> None:
    """Download a dataset, going on where an earlier attempt was cut off, check its files and unpack them.

    ```
    forgetless data fetch flowers
    forgetless data fetch svhn --root /mnt/data --no-unpack
    ```
    """
    from forgetless.lab.datasets import entry
    from forgetless.lab.datasets.reading import download

    found = entry(name)
    if not found.sources:
        raise ForgetlessError(
            f"{found.title} has no file that can be downloaded directly: {found.otherwise} ({found.page})."
        )
    if (loose := found.unpinned()) and not unpinned:
        raise ForgetlessError(
            f"no checksum is published of {', '.join(source.url for source in loose)}, so what arrives cannot be "
            "verified; --unpinned downloads and unpacks it all the same."
        )
    typer.echo(f"{found.title}: {found.license}", err=True)
    fetched = []
    for source in found.sources:
        there = (root / source.path).is_file()
        digest = download.download(source, root, _watch(source.url))
        fetched.append({"file": str(root / source.path), "there": there, "sha256": digest})
        compared = "as published" if source.checksum else "no checksum is published to compare it with"
        told = f"{root / source.path}: {'there already' if there else 'done'}, SHA-256 {digest} ({compared})"
        typer.echo(told, err=as_json)
        if unpack and source.unpack is not None:
            typer.echo(f"unpacking into {root / source.unpack}", err=True)
            download.unpack(source, root)
    if as_json:
        print_json({"name": name, "files": fetched})
        return
    typer.echo(f"check it with: forgetless data check {name} --root {root}")


def _watch(url: str) -> Any:
    """Tells every ten seconds how far a download is."""
    last = time.monotonic()

    def tell(done: int, whole: int | None) -> None:
        nonlocal last
        if time.monotonic() - last >= 10:
            last = time.monotonic()
            share = "" if not whole else f" of {whole / 1e6:.0f}"
            typer.echo(f"{url}: {done / 1e6:.0f}{share} MB", err=True)

    return tell


def _some(classes: tuple[str, ...]) -> str:
    return ", ".join(classes[:5]) + (f" … {classes[-1]}" if len(classes) > 5 else "")
