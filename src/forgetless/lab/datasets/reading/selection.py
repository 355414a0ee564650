"""What the small datasets share: each is two Parquet files, a selection of a public set, scaled down for a CPU."""

from __future__ import annotations

from forgetless.lab.datasets.reading.entry import Entry
from forgetless.lab.datasets.reading.folder import read


def selection(
    name: str,
    title: str,
    *,
    classes: int,
    train: int,
    test: int,
    license: str,
    page: str,
    listing: str,
    instead: str = "",
) -> Entry:
    """The catalog's entry for a selection in the folder `name`; arguments as `Entry` has them.

    `instead` says what can be used instead, a clause; by default, what `forgetless run eight-tasks` takes.
    """
    instead = instead or f"eight-tasks takes any dataset in a folder {name}/ instead"
    return Entry(
        name,
        title,
        name,
        f"{name}/ with train.parquet and test.parquet (a column of pictures, one of labels)",
        classes,
        train,
        test,
        license,
        page,
        read,
        otherwise=f"this selection is not distributed; {instead}",
        listing=listing,
    )
