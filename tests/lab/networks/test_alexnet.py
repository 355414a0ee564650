from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from forgetless.errors import ForgetlessError
from forgetless.lab.networks import alexnet as module
from forgetless.lab.networks.alexnet import FEATURES, SIZE, Enlarge, Mixed, alexnet
from forgetless.learn.classification import classification
from forgetless.learn.heads import MultiHead

models = pytest.importorskip("torchvision.models", reason="torchvision is not installed")


def state() -> dict[str, Tensor]:
    """AlexNet's names and shapes; a single number behind every tensor, so that the file is small."""
    with torch.device("meta"):
        network = models.alexnet()
    return {name: torch.full((1,), 1e-4).expand(each.shape) for name, each in network.state_dict().items()}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.save(state(), tmp_path / "alexnet.pth")
    return tmp_path / "alexnet.pth"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets torchvision build an AlexNet of two hidden layers of 8, whose pictures are 63 pixels wide."""

    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Sequential(nn.Conv2d(3, 4, 11, 4, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2))
            self.avgpool = nn.AdaptiveAvgPool2d(2)
            self.classifier = nn.Sequential(
                nn.Dropout(), nn.Linear(16, FEATURES), nn.ReLU(inplace=True), nn.Linear(FEATURES, 5)
            )

    monkeypatch.setattr(models, "alexnet", Small)
    monkeypatch.setattr(module, "SIZE", 63)


def refusal(**options: str) -> str:
    with pytest.raises(ForgetlessError) as caught:
        alexnet(**options)
    return str(caught.value)


def test_torchvisions_file_is_read(weights: Path) -> None:
    model = alexnet(str(weights)).eval()
    assert model.pretrained
    model.grow("t", 3)
    pictures = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        features = model.backbone(pictures)
    assert features.shape == (1, FEATURES)
    assert not any(getattr(each, "inplace", False) for each in model.modules())
    assert not any(isinstance(each, nn.Linear) and each.out_features == 1000 for each in model.modules())
    first = model.get_parameter("backbone.features.0.weight").detach()
    assert torch.equal(first, torch.full_like(first, 1e-4))
    first[0, 0, 0, 0] = 1
    assert float(first[1, 0, 0, 0]) == pytest.approx(1e-4)  # weights of its own, not views of one number


def test_it_computes_what_torchvisions_computes(small: None, tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = models.alexnet().eval()
    torch.save(theirs.state_dict(), tmp_path / "small.pth")
    ours = alexnet(str(tmp_path / "small.pth")).eval()
    pictures = torch.randint(0, 256, (2, 3, 63, 63), dtype=torch.uint8)
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        maps = theirs.avgpool(theirs.features((pictures / 255 - mean) / std))
        expected = theirs.classifier[:-1](maps.flatten(1))
        assert torch.allclose(ours.backbone(pictures), expected, atol=1e-5)
    assert float(expected.abs().max()) > 0.1


def test_the_file_in_torchvisions_cache(small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    path = tmp_path / "checkpoints" / "alexnet-owt-7be5be79.pth"
    assert refusal() == (
        f"AlexNet's ImageNet weights are not at {path}; name the file with --weights, or put "
        "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth there."
    )
    path.parent.mkdir()
    torch.save(models.alexnet().state_dict(), path)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    assert refusal() == (
        f"{path} is damaged: its SHA-256 begins with {found[:8]} and not 7be5be79; get "
        "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth."
    )
    right = path.rename(path.with_name(f"alexnet-{found[:8]}.pth"))
    monkeypatch.setattr(module, "URL", f"https://host/{right.name}")
    assert isinstance(alexnet(), MultiHead)


class Hostile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.mkdir, (self.path,)


def test_what_is_not_alexnet_or_hostile_is_refused(tmp_path: Path) -> None:
    path, proof = tmp_path / "w.pth", tmp_path / "proof"
    assert refusal(weights=str(path)) == f"AlexNet's ImageNet weights are not at {path}; it is {module.URL}."
    for content in (b"", b"PK\x03\x04", {"features.0.weight": torch.zeros(1)}, Hostile(proof)):
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save(content, path)
        assert refusal(weights=str(path)) == f"{path} is damaged or does not hold torchvision's AlexNet."
    assert not proof.exists()


@pytest.mark.parametrize("device", ["cuda", "no such thing"])
def test_a_device_that_is_not_there(device: str) -> None:
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("there is one")
    assert refusal(device=device) == f"there is no device {device!r} here; leave out --device to use the CPU."


def test_small_pictures_are_enlarged_and_others_left() -> None:
    pictures = torch.randint(0, 256, (1, 3, SIZE, SIZE), dtype=torch.uint8)
    assert torch.equal(Enlarge()(pictures), pictures.float())
    gray = torch.full((2, 3, 32, 32), 77, dtype=torch.uint8)
    assert torch.allclose(Enlarge()(gray), torch.full((2, 3, SIZE, SIZE), 77.0))


def test_mixed_precision_is_for_training_alone() -> None:
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    seen: list[torch.dtype] = []
    backbone.register_forward_hook(lambda layer, inputs, output: seen.append(output.dtype))
    mixed, inputs = Mixed(backbone), torch.randn(5, 8)
    exact = backbone(inputs)
    features = mixed.train()(inputs)
    assert features.dtype == torch.float32
    assert seen.pop() == torch.bfloat16
    assert torch.allclose(features, exact, atol=0.05)
    assert not torch.equal(features, exact)
    features.sum().backward()
    assert backbone[0].weight.grad is not None
    assert backbone[0].weight.grad.dtype == torch.float32
    assert torch.equal(mixed.eval()(inputs), exact)
    assert seen.pop() == torch.float32


def test_learning_in_mixed_precision_with_mas(small: None, tmp_path: Path) -> None:
    from forgetless.learn.methods.mas import MAS
    from forgetless.learn.recipe import Recipe
    from forgetless.learn.train import learn

    torch.manual_seed(0)
    torch.save(models.alexnet().state_dict(), tmp_path / "small.pth")
    model = alexnet(str(tmp_path / "small.pth"), amp=True)
    labels = torch.arange(8) % 2
    pictures = (labels * 200).to(torch.uint8).view(-1, 1, 1, 1).expand(8, 3, 63, 63).contiguous()
    tasks = [classification(name, ("dark", "light"), (pictures, labels), (pictures, labels)) for name in ("a", "b")]
    method = MAS()
    outcome = learn(model, tasks, method, Recipe(1e-3, 2, 4, warm_start=False), seed=0)
    assert outcome.accuracy[1][0] is not None
    assert method.state()
