"""Small image datasets in the layouts in which the originals unpack."""

from __future__ import annotations

import hashlib
import pickle
import string
from pathlib import Path

import numpy as np
import pytest

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")


def picture(path: Path, shade: int = 100, size: tuple[int, int] = (12, 10)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade, 20, 30)).save(path)
    return path


def text(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def flowers102(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Seven pictures of three flowers; torchvision is told the checksums of these files instead of the original's."""
    scipy = pytest.importorskip("scipy.io", reason="SciPy is not installed")
    kind = pytest.importorskip("torchvision.datasets").Flowers102
    folder = root / "flowers-102"
    for number in range(1, 8):
        picture(folder / "jpg" / f"image_{number:05}.jpg", 10 * number)
    scipy.savemat(folder / "imagelabels.mat", {"labels": np.array([[1, 2, 102, 1, 2, 102, 3]])})
    scipy.savemat(folder / "setid.mat", {"trnid": [[1, 2]], "valid": [[3, 7]], "tstid": [[6, 4, 5]]})
    sums = {
        "label": ("imagelabels.mat", _md5(folder / "imagelabels.mat")),
        "setid": ("setid.mat", _md5(folder / "setid.mat")),
    }
    monkeypatch.setattr(kind, "_file_dict", {**kind._file_dict, **sums})
    return folder


def indoor67(root: Path) -> Path:
    folder = root / "indoor67"
    for name in ("kitchen/a b.jpg", "kitchen/c.jpg", "airport_inside/d.jpg"):
        picture(folder / "Images" / name)
    text(folder / "TrainImages.txt", "kitchen/a b.jpg", "airport_inside/d.jpg")
    text(folder / "TestImages.txt", "kitchen/c.jpg", "")
    return folder


def cub200(root: Path) -> Path:
    folder = root / "CUB_200_2011"
    names = ["001.Black_footed_Albatross/B_0046_18.jpg", "001.Black_footed_Albatross/B_0009.jpg", "002.Auk/A_1.jpg"]
    for number, name in enumerate(names, 1):
        picture(folder / "images" / name, 50 * number)
    text(folder / "images.txt", *(f"{number} {name}" for number, name in enumerate(names, 1)))
    text(folder / "image_class_labels.txt", "1 1", "2 1", "3 2")
    text(folder / "train_test_split.txt", "1 0", "2 1", "3 1")
    text(folder / "classes.txt", "1 001.Black_footed_Albatross", "2 002.Auk")
    return folder


def cars196(root: Path) -> Path:
    scipy = pytest.importorskip("scipy.io", reason="SciPy is not installed")
    folder = root / "stanford_cars"
    (folder / "devkit").mkdir(parents=True)
    for part, path in (
        ("train", folder / "devkit" / "cars_train_annos.mat"),
        ("test", folder / "cars_test_annos_withlabels.mat"),
    ):
        files = [f"{number:05}.jpg" for number in (1, 2, 3)]
        for number, file in enumerate(files):
            picture(folder / f"cars_{part}" / file, 60 + number)
        kinds = np.zeros(
            (1, 3), [(name, "O") for name in ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")]
        )
        for number, file in enumerate(files):
            kinds[0, number] = (1, 1, 5, 5, 2 - number % 2, file)
        scipy.savemat(path, {"annotations": kinds})
    names = np.empty((1, 2), object)
    names[0] = ["AM General Hummer SUV 2000", "Acura RL Sedan 2012"]
    scipy.savemat(folder / "devkit" / "cars_meta.mat", {"class_names": names})
    return folder


def aircraft100(root: Path) -> Path:
    data = root / "fgvc-aircraft-2013b" / "data"
    for name in ("0000001", "0000002", "0000003"):
        picture(data / "images" / f"{name}.jpg")
    text(data / "variants.txt", "707-320", "An-12 B")
    text(data / "images_variant_trainval.txt", "0000001 An-12 B", "0000002 707-320")
    text(data / "images_variant_test.txt", "0000003 An-12 B")
    return data.parent


def person(actions: str, box: tuple[float, ...] = (2, 3, 9, 8), name: str = "person") -> str:
    kinds = ("jumping", "phoning", "playinginstrument", "reading", "ridingbike", "ridinghorse")
    kinds += ("running", "takingphoto", "usingcomputer", "walking", "other")
    done = "".join(f"<{kind}>{int(kind in actions.split())}</{kind}>" for kind in kinds)
    sides = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    bounds = "".join(f"<{side}>{value}</{side}>" for side, value in sides)
    return f"<object><name>{name}</name><actions>{done}</actions><bndbox>{bounds}</bndbox></object>"


def voc_actions(root: Path) -> Path:
    """A training picture with a person who jumps, one who does two things and one who walks; a test picture."""
    folder = root / "VOCdevkit" / "VOC2012"
    pixels = np.zeros((10, 12, 3), np.uint8)
    pixels[2:8, 1:9] = (200, 100, 50)  # the box of the first person, which VOC writes (2, 3, 9, 8)
    (folder / "JPEGImages").mkdir(parents=True)
    Image.fromarray(pixels).save(folder / "JPEGImages" / "2010_1.jpg", quality=100, subsampling=0)
    picture(folder / "JPEGImages" / "2010_2.jpg")
    people = person("jumping") + person("reading phoning") + person("walking", (1.5, 1, 12, 10))
    text(folder / "Annotations" / "2010_1.xml", f"<annotation>{people}</annotation>")
    text(folder / "Annotations" / "2010_2.xml", f"<annotation>{person('other')}</annotation>")
    text(folder / "ImageSets" / "Action" / "train.txt", "2010_1  1", "2010_1  2", "2010_1  3")
    text(folder / "ImageSets" / "Action" / "val.txt", "2010_2  1")
    return folder


def chars74k(root: Path, kind: str = "Img", each: int = 2) -> Path:
    folder = root / "chars74k"
    for number in range(1, 63):
        for copy in range(each):
            name = f"Sample{number:03}/img{number:03}-{copy + 1:05}.png"
            if kind == "Img":
                quality = "GoodImg" if copy % 2 == 0 else "BadImg"
                picture(folder / "English" / "Img" / quality / "Bmp" / name, number)
            else:
                picture(folder / "English" / "Fnt" / name, number)
    return folder


def svhn(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Digits 1, 0 (which the original calls 10) and 9; torchvision is told the checksums of these files."""
    scipy = pytest.importorskip("scipy.io", reason="SciPy is not installed")
    kind = pytest.importorskip("torchvision.datasets").SVHN
    folder = root / "svhn"
    folder.mkdir(parents=True)
    known = dict(kind.split_list)
    for part, labels in (("train", [1, 10, 9]), ("test", [10, 2])):
        pixels = np.zeros((32, 32, 3, len(labels)), np.uint8)
        pixels[..., 0, :] = np.array(labels) * 20
        path = folder / f"{part}_32x32.mat"
        scipy.savemat(path, {"X": pixels, "y": np.array(labels, np.uint8)[:, None]})
        known[part] = [*known[part][:2], _md5(path)]
    monkeypatch.setattr(kind, "split_list", known)
    return folder


LETTERS = string.ascii_uppercase + string.ascii_lowercase


def cifar100(root: Path, monkeypatch: pytest.MonkeyPatch, classes: int = 100) -> Path:
    """Two training pictures and one test picture of a class; torchvision is told the checksums of these files."""
    kind = pytest.importorskip("torchvision.datasets").CIFAR100
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True)
    for name, count in (("train", 2 * classes), ("test", classes)):
        data = np.arange(count, dtype=np.uint8)[:, None].repeat(3 * 32 * 32, 1)
        content = {"data": data, "fine_labels": [number % classes for number in range(count)]}
        (folder / name).write_bytes(pickle.dumps(content))
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": [f"kind {number}" for number in range(classes)]}))
    monkeypatch.setattr(kind, "train_list", [["train", _md5(folder / "train")]])
    monkeypatch.setattr(kind, "test_list", [["test", _md5(folder / "test")]])
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": _md5(folder / "meta")})
    return folder


def tiny_imagenet(root: Path, classes: int = 3) -> Path:
    """Two training pictures and one validation picture of a class."""
    folder = root / "tiny-imagenet-200"
    names = [f"n{number:08}" for number in range(classes)]
    text(folder / "wnids.txt", *reversed(names))
    for label, name in enumerate(names):
        for number in (0, 1):
            picture(folder / "train" / name / "images" / f"{name}_{number}.JPEG", 10 * label + number)
        picture(folder / "val" / "images" / f"val_{label}.JPEG", 10 * label)
    annotations = [f"val_{label}.JPEG\t{name}\t0\t32\t44\t62" for label, name in enumerate(names)]
    text(folder / "val" / "val_annotations.txt", *annotations)
    return folder
