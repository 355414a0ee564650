from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from forgetless.errors import ForgetlessError
from forgetless.lab.experiments.parts.images import load, stratified, with_tests
from forgetless.learn.classification import classes_of, classification

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
parquet = pytest.importorskip("pyarrow.parquet")

SHARED = Path(__file__).parents[5] / "shared" / "data" / "vision"
COLORS = {"blue": (0, 0, 255), "green": (0, 255, 0), "red": (255, 0, 0)}


def picture(color: str, width: int = 20, height: int = 10, kind: str = "png", mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), COLORS[color]).convert(mode).save(buffer, kind)
    return buffer.getvalue()


def tree(folder: Path, train: int = 3, test: int = 2) -> Path:
    for split, count in (("train", train), ("test", test)):
        for color in COLORS:
            (folder / split / color).mkdir(parents=True)
            for number in range(count):
                (folder / split / color / f"{number}.PNG").write_bytes(picture(color))
    return folder


def table(
    path: Path,
    colors: Sequence[str],
    labels: Sequence[Any],
    /,
    *,
    names: Sequence[str] | None = tuple(COLORS),
    **cell: Any,
) -> None:
    """A Parquet file as `datasets` writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = [{"bytes": picture(color), "path": None, **cell} for color in colors]
    columns = {"image": cells, "label": list(labels)}
    schema = pyarrow.schema(
        [
            ("image", pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])),
            ("label", pyarrow.string() if any(isinstance(label, str) for label in labels) else pyarrow.int64()),
        ]
    )
    if names is not None:
        features = {"image": {"_type": "Image"}, "label": {"names": list(names), "_type": "ClassLabel"}}
        schema = schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    parquet.write_table(pyarrow.table(columns, schema=schema), path)


def tables(folder: Path, **options: Any) -> Path:
    for split in ("train", "test"):
        table(folder / f"{split}.parquet", list(COLORS), [0, 1, 2], **options)
    return folder


def colors(inputs: Tensor) -> list[tuple[int, ...]]:
    """The color of every picture, all of whose pixels must agree."""
    assert bool((inputs == inputs[:, :, :1, :1]).all())
    return [tuple(each) for each in inputs[:, :, 0, 0].tolist()]


def refusal(folder: Path, **options: Any) -> str:
    before = sorted(folder.rglob("*")) if folder.is_dir() else None
    with pytest.raises(ForgetlessError) as caught:
        load(folder, **{"size": 8, **options})
    assert before is None or sorted(folder.rglob("*")) == before
    return str(caught.value)


def test_a_tree_is_read(tmp_path: Path) -> None:
    task = load(tree(tmp_path / "paints"), size=8)
    assert (task.name, classes_of(task)) == ("paints", ("blue", "green", "red"))
    (inputs, labels), (tests, _) = task.train, task.test
    assert (inputs.dtype, inputs.shape, tests.shape) == (torch.uint8, (9, 3, 8, 8), (6, 3, 8, 8))
    assert labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert colors(inputs) == [COLORS[classes_of(task)[label]] for label in labels]


def test_parquet_is_read(tmp_path: Path) -> None:
    task = load(tables(tmp_path / "paints"), size=8)
    assert (task.name, classes_of(task)) == ("paints", ("blue", "green", "red"))
    assert task.train[1].tolist() == [0, 1, 2]
    assert colors(task.test[0]) == list(COLORS.values())


def test_parquet_with_other_columns_paths_and_without_names(tmp_path: Path) -> None:
    tables(tmp_path / "plain", names=None)
    assert classes_of(load(tmp_path / "plain", size=8)) == ("0", "1", "2")
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "p.png").write_bytes(picture("green"))
    tables(tmp_path / "beside", bytes=None, path="p.png")
    assert colors(load(tmp_path / "beside", size=8).train[0]) == [COLORS["green"]] * 3
    for split in ("train", "test"):
        path = tables(tmp_path / "other") / f"{split}.parquet"
        read = parquet.read_table(path)
        metadata = {
            "huggingface": read.schema.metadata[b"huggingface"]
            .replace(b'"image"', b'"img"')
            .replace(b'"label"', b'"fine"')
        }
        parquet.write_table(read.rename_columns(["img", "fine"]).replace_schema_metadata(metadata), path)
    assert load(tmp_path / "other", size=8).train[1].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("kind", "mode"), [("png", "L"), ("png", "P"), ("png", "RGBA"), ("jpeg", "CMYK"), ("gif", "P"), ("png", "1")]
)
def test_every_kind_of_picture_becomes_rgb(tmp_path: Path, kind: str, mode: str) -> None:
    folder = tree(tmp_path / "paints")
    (folder / "train" / "red" / "0.PNG").write_bytes(picture("red", kind=kind, mode=mode))
    red = load(folder, size=8).train[0][6].float().mean((1, 2))
    assert red.shape == (3,)
    if mode not in ("L", "1"):
        assert red[0] > 200
        assert red[1:].max() < 60


def test_pictures_are_scaled_by_the_shorter_side_cut_in_the_middle_and_upright(tmp_path: Path) -> None:
    folder = tree(tmp_path / "paints")
    wide = np.zeros((16, 48, 3), np.uint8)
    wide[:, 16:32, 0] = 255  # a red square in the middle of black
    wide[:8, 16:32, 1] = 255  # its upper half yellow
    flipped = Image.Exif()
    flipped[0x0112] = 3  # "turn by 180°"
    first, second = folder / "train" / "red" / "0.PNG", folder / "train" / "red" / "1.PNG"
    Image.fromarray(wide).save(first, "png")
    Image.fromarray(wide[::-1, ::-1]).save(second, "png", exif=flipped)
    inputs = load(folder, size=8).train[0][6:8]
    assert torch.equal(inputs[0], inputs[1])
    assert int(inputs[0, 0].min()) > 200  # black, where scaling mixes at the edge of the cut
    assert int(inputs[0, 1, 0].min()) > 200
    assert int(inputs[0, 1, -1].max()) < 50


def test_a_limit_keeps_every_class_of_train_and_all_of_test(tmp_path: Path) -> None:
    folder = tree(tmp_path / "paints", train=6)
    task = load(folder, size=8, limit=6)
    assert task.train[1].tolist() == [0, 0, 1, 1, 2, 2]
    assert colors(task.train[0]) == [COLORS[classes_of(task)[label]] for label in task.train[1]]
    assert len(task.test[1]) == 6
    assert len(load(folder, size=8, limit=99).train[1]) == 18


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(1, 60), st.integers(0, 3))
def test_stratified_keeps_proportions(labels: list[int], limit: int, seed: int) -> None:
    given_labels, classes = torch.tensor(labels), set(labels)
    if limit < len(classes):
        with pytest.raises(ForgetlessError, match=f"a limit of {limit} pictures leaves some of the"):
            stratified(given_labels, limit, seed)
        return
    chosen = stratified(given_labels, limit, seed)
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert len(chosen) == min(limit, len(labels))
    assert torch.equal(chosen, stratified(given_labels, limit, seed))
    kept = given_labels[chosen].tolist()
    for label in classes:
        fair = labels.count(label) * len(chosen) / len(labels)
        assert kept.count(label) >= 1
        assert abs(kept.count(label) - fair) <= len(classes)


def test_seeds_choose_different_pictures() -> None:
    labels = torch.arange(100) % 2
    assert not torch.equal(stratified(labels, 20, 0), stratified(labels, 20, 1))


def test_missing_folders_and_splits(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none") == (
        f"{tmp_path / 'none'} is no folder; a task is a folder with train/ and test/, or two Parquet files."
    )
    folder = tmp_path / "empty"
    folder.mkdir()
    layouts = "one has pictures in train/CLASS/ and test/CLASS/, or train.parquet and test.parquet."
    sentence = f"{folder} has neither train.parquet nor a folder train/, so it is not a dataset: {layouts}"
    assert refusal(folder) == sentence
    table(folder / "train.parquet", ["red"], [0])
    assert refusal(folder) == sentence.replace("train.parquet nor a folder train/", "test.parquet nor a folder test/")


def test_empty_splits(tmp_path: Path) -> None:
    folder = tree(tmp_path / "tree", test=0)
    assert refusal(folder) == f"{folder / 'test'} holds no pictures."
    folder = tables(tmp_path / "tables")
    table(folder / "test.parquet", [], [])
    assert refusal(folder) == f"{folder / 'test.parquet'} holds no pictures."


def test_a_corrupt_picture_is_named(tmp_path: Path) -> None:
    folder = tree(tmp_path / "tree")
    broken = folder / "test" / "green" / "1.PNG"
    for content in (b"", b"not a picture", picture("green", 200, 200)[:150]):
        broken.write_bytes(content)
        assert refusal(folder).startswith(f"{broken} is no picture that can be read: ")
    folder = tables(tmp_path / "tables")
    table(folder / "train.parquet", ["red", "blue"], [0, 1], bytes=b"not a picture")
    assert refusal(folder).startswith(f"row 0 of {folder / 'train.parquet'} is no picture that can be read: ")
    table(folder / "train.parquet", ["red"], [0], bytes=None)
    assert refusal(folder) == f"row 0 of {folder / 'train.parquet'} holds no picture."


def test_classes_that_differ_are_named(tmp_path: Path) -> None:
    folder = tree(tmp_path / "tree")
    (folder / "test" / "green").rename(folder / "test" / "grün")
    assert refusal(folder) == f"train and test of {folder} differ in their classes: 'green', 'grün'."
    folder = tables(tmp_path / "tables")
    table(folder / "test.parquet", ["red"], [0], names=("green", "blue", "red"))
    assert refusal(folder) == f"train and test of {folder} differ in their classes: 'blue', 'green', 'red'."


@pytest.mark.parametrize("label", [3, -1, None, "red"])
def test_labels_outside_the_classes_are_named(tmp_path: Path, label: Any) -> None:
    folder = tables(tmp_path / "tables")
    other = "blue" if isinstance(label, str) else 0
    table(folder / "train.parquet", ["red", "blue"], [other, label])
    wrong, row = (other, 0) if isinstance(label, str) else (label, 1)
    path = folder / "train.parquet"
    assert refusal(folder) == f"{path} has the label {wrong!r} in row {row}, outside its 3 classes."


def test_parquet_that_holds_something_else(tmp_path: Path) -> None:
    folder = tables(tmp_path / "tables")
    path = folder / "train.parquet"
    parquet.write_table(pyarrow.table({"text": ["a"], "label": [0]}), path)
    assert refusal(folder) == f"{path} is not a dataset: it has no column 'image'."
    for content in (b"", b"PAR1", path.read_bytes()[:-20]):
        path.write_bytes(content)
        assert refusal(folder).startswith(f"{path} cannot be read as Parquet: ")


@pytest.mark.parametrize(
    "metadata", [b"{", b"[]", b'{"info": 3}', b'{"info": {"features": {"label": {"_type": "ClassLabel"}}}}']
)
def test_damaged_metadata_is_named(tmp_path: Path, metadata: bytes) -> None:
    folder = tables(tmp_path / "tables")
    path = folder / "train.parquet"
    parquet.write_table(parquet.read_table(path).replace_schema_metadata({"huggingface": metadata}), path)
    assert refusal(folder).startswith(f"{path} ")


@pytest.mark.parametrize("options", [{"size": 0}, {"limit": 0}, {"limit": -3}])
def test_sizes_and_limits_must_be_positive(tmp_path: Path, options: dict[str, int]) -> None:
    assert refusal(tree(tmp_path / "paints"), **options).startswith("size and limit must be at least 1")
    assert "leaves some of the 3 classes without one" in refusal(tmp_path / "paints", limit=2)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared image datasets (../shared/data/vision) are not here")
@pytest.mark.parametrize(("name", "classes", "test"), [("letters", 26, 722), ("digits", 10, 206)])
def test_real_picture_sets(name: str, classes: int, test: int) -> None:
    task = load(SHARED / name, size=32, limit=100)
    assert (len(classes_of(task)), len(task.test[1])) == (classes, test)
    assert task.train[0].shape == (100, 3, 32, 32)
    assert len(task.train[1].unique()) == classes
    assert float(task.train[0].float().std()) > 20


def test_at_most_so_many_test_pictures_and_the_same_ones_every_time() -> None:
    labels = torch.tensor([0] * 20 + [1] * 10)
    task = classification("a", ("x", "y"), (labels, labels), (torch.arange(30), labels))
    fewer, again = (with_tests(task, 6) for _ in range(2))
    assert fewer.test[1].tolist() == [0] * 4 + [1] * 2
    assert torch.equal(fewer.test[0], again.test[0])
    assert torch.equal(labels[fewer.test[0]], fewer.test[1])
    assert fewer.train is task.train
    assert with_tests(task, 30) is task
