"""What the small data sets share: each is two Parquet files, a selection of a public set, scaled down for a CPU."""

from __future__ import annotations

from forgetless.lab.datasets.reading.entry import Entry
from forgetless.lab.datasets.reading.folder import read


def selection(
    name: str, title: str, *, classes: int, train: int, test: int, license: str, page: str, listing: str
) -> Entry:
    """The catalog's entry for a selection in the folder `name`; arguments as `Entry` has them."""
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
        otherwise=f"this selection is not distributed, and eight-tasks takes any data set in a folder {name}/ instead",
        listing=listing,
    )
