"""An importance in a folder or on the Hub comes back to the bit; whatever is wrong there is one sentence."""

from __future__ import annotations

import functools
import importlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import forgetless
from fake_hub import TOKEN, FakeHub, serving
from forgetless import Importance
from forgetless.errors import ForgetlessError

FILE = "importance.safetensors"


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def measured(**settings: Any) -> Importance:
    data = torch.randn(8, 3, generator=torch.Generator().manual_seed(1))
    return forgetless.mas(network(), data, progress=False, **settings)


def same(found: Importance, expected: Importance) -> bool:
    return (
        all(torch.equal(found.sums[name], total) for name, total in expected.sums.items())
        and (found.count, found.weights, found.unused) == (expected.count, expected.weights, expected.unused)
        and found.sums.keys() == expected.sums.keys()
    )


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    package = pytest.importorskip("huggingface_hub")
    constants = importlib.import_module("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    with serving() as found:
        monkeypatch.setattr(package, "HfApi", functools.partial(package.HfApi, endpoint=found.url))
        yield found


def test_a_folder_gives_back_what_it_was_given(tmp_path: Path) -> None:
    importance = measured(until=0.5)
    importance.save_pretrained(tmp_path / "new" / "folder", base_model="me/small", data="eight points")
    found = Importance.from_pretrained(tmp_path / "new" / "folder", model=network())
    assert same(found, importance)
    assert found.error() == importance.error()
    assert same(Importance.from_pretrained(str(tmp_path / "new" / "folder")), importance)


def test_the_hub_gives_back_what_it_was_given(hub: FakeHub) -> None:
    importance = measured()
    address = importance.push_to_hub("me/omega", base_model="me/small", token=TOKEN, commit_message="First")
    assert address.startswith(f"{hub.url}/me/omega/commit/")
    assert hub.commits == [("me/omega", "main", "First")]
    assert set(hub.repos["me/omega"]["main"]) == {FILE, "README.md"}
    assert same(Importance.from_pretrained("me/omega", model=network()), importance)
    assert same(Importance.from_pretrained("me/omega", local_files_only=True), importance)


def test_revisions_and_private_repositories(hub: FakeHub, tmp_path: Path) -> None:
    first, second = measured(), measured(batch_size=3).faded(0.5)
    first.push_to_hub("me/omega", token=TOKEN, private=True)
    second.push_to_hub("me/omega", token=TOKEN, revision="faded")
    assert hub.private == {"me/omega"}
    assert same(Importance.from_pretrained("me/omega", token=TOKEN), first)
    assert same(Importance.from_pretrained("me/omega", token=TOKEN, revision="faded"), second)
    with pytest.raises(ForgetlessError, match="no repository 'me/omega' on the Hub that this login may see"):
        Importance.from_pretrained("me/omega", token=False, cache_dir=tmp_path / "of-another")


def test_a_card_of_others_is_kept(hub: FakeHub) -> None:
    hub.repos["me/model"] = {"main": {"README.md": b"# My model"}}
    measured().push_to_hub("me/model", token=TOKEN)
    assert hub.repos["me/model"]["main"]["README.md"] == b"# My model"
    assert FILE in hub.repos["me/model"]["main"]


def test_a_card_of_ours_is_replaced(hub: FakeHub) -> None:
    measured().push_to_hub("me/omega", token=TOKEN, data="the first data")
    measured().push_to_hub("me/omega", token=TOKEN, data="other data")
    card = hub.repos["me/omega"]["main"]["README.md"].decode()
    assert "other data" in card
    assert "the first data" not in card


@pytest.mark.parametrize(
    ("repo", "settings", "said"),
    [
        ("me/nothing", {}, "there is no repository 'me/nothing' on the Hub that this login may see"),
        ("me/empty", {}, "'me/empty' has no file 'importance.safetensors'."),
        ("me/empty", {"revision": "v2"}, "'me/empty' has no revision 'v2'; name a branch, a tag or a commit."),
        ("me/gated", {}, "'me/gated' is gated: ask for access"),
        ("no name/of a repo", {}, "is neither a folder here nor a repository's name on the Hub"),
        ("me/empty", {"token": True}, "needs a login to the Hub and there is none here"),
        ("me/empty", {"local_files_only": True}, "is not in the cache and the Hub was not reached"),
        ("me/pickle", {}, "is damaged or no importance file"),
        ("me/stranger", {}, "is no importance file: it was not written by forgetless"),
    ],
)
def test_what_cannot_be_fetched_is_said_in_a_sentence(
    repo: str, settings: dict[str, Any], said: str, hub: FakeHub, tmp_path: Path
) -> None:
    import pickle

    import safetensors.torch

    hub.repos |= {"me/empty": {"main": {"other": b""}}, "me/gated": {"main": {}}}
    hub.repos["me/pickle"] = {"main": {FILE: pickle.dumps({"a": 1})}}
    hub.repos["me/stranger"] = {"main": {FILE: safetensors.torch.save({"a": torch.ones(2)})}}
    hub.gated = {"me/gated"}
    with pytest.raises(ForgetlessError) as caught:
        Importance.from_pretrained(repo, **settings)
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_nothing_is_pushed_without_a_login_that_may(hub: FakeHub) -> None:
    with pytest.raises(ForgetlessError, match=r"this login may not do that with 'me/omega' on the Hub \(HTTP 401\)"):
        measured().push_to_hub("me/omega")
    hub.readonly = {"you/omega"}
    with pytest.raises(ForgetlessError, match=r"'you/omega' on the Hub \(HTTP 403\)"):
        measured().push_to_hub("you/omega", token=TOKEN)
    assert hub.repos == {}


def test_a_hub_that_does_not_answer(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.shutdown()
    hub.server_close()
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between the client's tries
    with pytest.raises(ForgetlessError, match="is not in the cache and the Hub was not reached"):
        Importance.from_pretrained("me/omega")
    with pytest.raises(ForgetlessError, match="the Hub could not be asked about 'me/omega'"):
        measured().push_to_hub("me/omega", token=TOKEN)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ForgetlessError, match="pip install huggingface_hub"):
        Importance.from_pretrained("me/omega")


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ForgetlessError, match="is no folder"):
        Importance.from_pretrained(tmp_path / "gone")
    with pytest.raises(ForgetlessError, match="does not exist"):
        Importance.from_pretrained(tmp_path)


def test_weights_other_than_those_measured_are_refused(tmp_path: Path) -> None:
    importance, model = measured(), network()
    importance.save_pretrained(tmp_path)
    assert importance.differing(model) == ()
    with torch.no_grad():
        model[2].weight[1, 1] += 1e-6
    assert importance.differing(model) == ("2.weight",)
    assert importance.differing(model[:2]) == ("2.weight", "2.bias")
    with pytest.raises(ForgetlessError, match=r"at other weights than the model has: '2\.weight'"):
        Importance.from_pretrained(tmp_path, model=model)


def test_an_importance_of_moving_weights_cannot_say_whose_it_is() -> None:
    importance = Importance({"0.weight": torch.ones(4, 3)}, 1.0)
    with pytest.raises(ForgetlessError, match="has no fingerprints"):
        importance.differing(network())


def test_the_hub_of_the_environment_is_asked(tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    code = (
        "import torch; from forgetless import Importance\n"
        "Importance({'a': torch.ones(3)}, 2.0).push_to_hub('me/omega')\n"
        "print(Importance.from_pretrained('me/omega').count)"
    )
    with serving() as found:
        place = {**os.environ, "HF_ENDPOINT": found.url, "HF_HOME": str(tmp_path), "HF_TOKEN": TOKEN}
        done = subprocess.run(
            [sys.executable, "-c", code], env=place, capture_output=True, text=True, check=False, timeout=120
        )
    assert done.stdout.split() == ["2.0"], done.stderr
