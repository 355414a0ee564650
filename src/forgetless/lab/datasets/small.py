"""Small picture sets, each two Parquet files: selections of public sets, scaled down, that a processor can learn."""

from __future__ import annotations

from forgetless.lab.datasets.reading.entry import Entry
from forgetless.lab.datasets.reading.folder import read


def _entry(name: str, title: str, classes: int, train: int, test: int, license: str, page: str, listing: str) -> Entry:
    layout = f"{name}/ with train.parquet and test.parquet (a column of pictures, one of labels)"
    otherwise = f"this selection is not distributed, and eight-tasks takes any picture set in a folder {name}/ instead"
    given = (name, title, name, layout, classes, train, test, license, page, read)
    return Entry(*given, otherwise=otherwise, listing=listing)


_CHARS74K = "http://www.ee.surrey.ac.uk/CVSSP/demos/chars74k/"
ENTRIES = (
    _entry(
        *("flowers", "flowers (Oxford Flowers-102, 64 pixels)", 102, 5087, 1563, "academic use"),
        "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/",
        "c82dfa569afd9ae9",
    ),
    _entry(
        *("scenes", "scenes (15 scenes, grey, 96 pixels)", 15, 900, 450, "academic use"),
        "Lazebnik, Schmid, Ponce, Beyond Bags of Features, CVPR 2006",
        "5c39a93011b03352",
    ),
    _entry(
        *("birds", "birds (31 kinds)", 31, 664, 166, "CC0 as stated"),
        "its origin is not recorded",
        "32d5d912c65494f1",
    ),
    _entry(
        *("cars", "cars (Stanford Cars cut to their boxes, 96 pixels)", 196, 2940, 1166, "non-commercial research"),
        "https://github.com/pytorch/vision/issues/7545",
        "1d0c648a3d70420a",
    ),
    _entry(
        *("groceries", "groceries (Grocery Store, 96 pixels)", 81, 2965, 1463, "MIT"),
        "https://github.com/marcusklasson/GroceryStoreDataset",
        "61f15c6c52ffd456",
    ),
    _entry(
        *("actions", "actions (22 sports, web pictures with noisy labels)", 22, 1320, 660, "unknown"),
        "its origin is not recorded",
        "19cb51aa5f36f692",
    ),
    _entry(
        *("letters", "letters (Chars74K street letters, 64 pixels)", 26, 1518, 722, "free for research"),
        _CHARS74K,
        "79b940304543fdd9",
    ),
    _entry(
        *("digits", "digits (Chars74K street digits)", 10, 543, 206, "free for research"),
        _CHARS74K,
        "54e7b868538897f1",
    ),
    _entry(
        *("textures", "textures (10 classes of DTD)", 10, 600, 300, "research"),
        "https://www.robots.ox.ac.uk/~vgg/data/dtd/",
        "0bceee788a05b3ac",
    ),
    _entry(
        *("mnist10k", "MNIST's test digits, split anew", 10, 8000, 2000, "CC BY-SA 3.0"),
        "http://yann.lecun.com/exdb/mnist/",
        "4c34cb009c539624",
    ),
)
