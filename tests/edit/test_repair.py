"""Repairs against their formulas computed plainly in float64, and checkpoints on disk from beginning to end."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

import forgetless
from forgetless import edit, files
from forgetless.edit.noise import threshold_by_median
from forgetless.errors import ForgetlessError
from peak import Peak


def spiked(long: int, short: int, spikes: int, seed: int = 0, noise: float = 1e-3) -> tuple[Tensor, Tensor]:
    """A low-rank matrix far above the noise, and it with noise; both float64."""
    draw = torch.Generator().manual_seed(seed)
    left, _ = torch.linalg.qr(torch.randn(long, max(1, spikes), generator=draw, dtype=torch.float64))
    right, _ = torch.linalg.qr(torch.randn(short, max(1, spikes), generator=draw, dtype=torch.float64))
    sizes = torch.linspace(12, 8, spikes, dtype=torch.float64) * noise * long**0.5
    signal = (left[:, :spikes] * sizes) @ right[:, :spikes].T
    return signal, signal + noise * torch.randn(long, short, generator=draw, dtype=torch.float64)


def plain(base: Tensor, tuned: Tensor, scale: float = 1.0, metric: Tensor | None = None) -> Tensor:
    """DG-Hard by the SVD, in float64."""
    weight = torch.ones_like(base) if metric is None else metric
    delta = ((tuned - base) * weight).flatten(1)
    left, values, right = torch.linalg.svd(delta, full_matrices=False)
    beta = min(delta.shape) / max(delta.shape)
    kept = torch.where(values > scale * threshold_by_median(beta) * values.quantile(0.5), values, 0)
    changed: Tensor = base + ((left * kept) @ right).view_as(base) / weight
    return changed


@given(
    shape=st.sampled_from([(64, 32), (32, 64), (40, 40), (33, 47), (16, 8, 3, 3), (4, 300)]),
    scale=st.sampled_from([0.5, 1.0, 1.3]),
    seed=st.integers(0, 5),
)
def test_dg_hard_is_the_thresholded_svd(shape: tuple[int, ...], scale: float, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    base = torch.randn(shape, generator=draw, dtype=torch.float64)
    rows, columns = base.flatten(1).shape
    tuned = base + spiked(rows, columns, 2, seed)[1].view(shape)
    got, facts = edit.repaired({"w": base}, {"w": tuned}, settings=edit.Settings(scale=scale))
    assert torch.allclose(got["w"], plain(base, tuned, scale), atol=1e-12, rtol=0)
    assert facts["w"]["total"] == min(rows, columns)


@pytest.mark.parametrize(("long", "short"), [(200, 200), (300, 100), (400, 40)])
def test_spikes_are_found_and_noise_is_measured(long: int, short: int) -> None:
    """The recovered rank is the true one, σ̂ is σ, and the error is what r large spikes leave: r (long + short) σ²."""
    signal, noisy = spiked(long, short, 5)
    base = torch.zeros(long, short, dtype=torch.float64)
    got, facts = edit.repaired({"w": base}, {"w": noisy})
    assert facts["w"]["kept"] == 5
    assert facts["w"]["sigma"] == pytest.approx(1e-3, rel=0.05)
    error = float((got["w"] - signal).square().sum())
    assert error < 1.4 * 5 * (long + short) * 1e-6
    assert error < 0.5 * float((noisy - signal).square().sum())


def test_pure_noise_is_undone_and_nothing_is_kept_of_it() -> None:
    base, noisy = spiked(150, 120, 0)
    got, facts = edit.repaired({"w": base}, {"w": noisy})
    assert torch.equal(got["w"], base)
    assert facts["w"]["kept"] == 0
    assert facts["w"]["energy"] == 0


def test_a_change_of_low_rank_is_kept_whole() -> None:
    base = torch.randn(64, 48)
    tuned = base.double() + torch.outer(torch.ones(64), torch.ones(48)).double()
    got, facts = edit.repaired({"w": base.double()}, {"w": tuned})
    assert torch.equal(got["w"], tuned)
    assert facts["w"]["energy"] == pytest.approx(1)


def test_where_the_bound_cannot_decide_the_svd_does(monkeypatch: pytest.MonkeyPatch) -> None:
    from forgetless.edit import difference

    base, tuned = torch.zeros(64, 32, dtype=torch.float64), spiked(64, 32, 3)[1]
    want, _ = edit.repaired({"w": base}, {"w": tuned})
    asked = []
    svd = difference.Difference._by_svd

    def noted(self: difference.Difference) -> tuple[Tensor, Tensor, float]:
        asked.append(1)
        return svd(self)

    monkeypatch.setattr(difference.Difference, "_by_svd", noted)
    values = torch.linalg.svdvals(tuned)
    scale = float(values[5] / (threshold_by_median(0.5) * values.quantile(0.5)))  # τ lies on a singular value
    got, _ = edit.repaired({"w": base}, {"w": tuned}, settings=edit.Settings(scale=scale))
    assert asked == [1]
    close = plain(base, tuned, scale * (1 + 1e-9)), plain(base, tuned, scale * (1 - 1e-9))
    assert any(torch.allclose(got["w"], each, atol=1e-12) for each in close)
    assert not torch.allclose(want["w"], got["w"])


def test_a_change_whose_squares_are_too_large_is_refused() -> None:
    with pytest.raises(ForgetlessError, match="the squares of its change are too large for float64"):
        edit.repaired({"w": torch.zeros(64, 32).double()}, {"w": torch.full((64, 32), -1e200, dtype=torch.float64)})


def test_what_has_no_spectrum_keeps_its_tuned_values() -> None:
    base = {"bias": torch.zeros(4000), "small": torch.zeros(8, 8), "same": torch.ones(64, 64), "n": torch.tensor([3])}
    tuned = {
        "bias": torch.ones(4000),
        "small": torch.ones(8, 8),
        "same": torch.ones(64, 64),
        "n": torch.tensor([4]),
        "head": torch.randn(64, 64),
    }
    got, facts = edit.repaired(base, tuned)
    assert facts == {}
    assert all(torch.equal(got[name], tuned[name]) and got[name] is not tuned[name] for name in tuned)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_types_are_kept_and_rounding_is_measured(dtype: torch.dtype) -> None:
    base = torch.randn(96, 64, dtype=torch.float64)
    tuned = base + 1e-4 * torch.randn(96, 64, dtype=torch.float64)
    got, facts = edit.repaired({"w": base.to(dtype)}, {"w": tuned.to(dtype)})
    assert got["w"].dtype == dtype
    real = float((tuned - tuned.to(dtype).double()).square().mean().sqrt())
    if dtype != torch.float64:
        assert facts["w"]["rounding"] == pytest.approx(real, rel=0.1)


def importance(**sums: Tensor) -> forgetless.Importance:
    return forgetless.Importance(sums, 2.0)


@given(st.floats(0, 1e6), st.integers(0, 3))
def test_the_blend_minimizes_what_it_says(strength: float, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    base, tuned = (torch.randn(7, 5, generator=draw, dtype=torch.float64) for _ in range(2))
    omega = torch.rand(7, 5, generator=draw)
    omega[0] = 0
    got, _ = edit.repaired(
        {"w": base, "b": base[0]},
        {"w": tuned, "b": tuned[0]},
        "importance",
        importance=importance(w=omega),
        settings=edit.Settings(strength=strength),
    )
    scaled = (omega / omega.mean()).double()
    slope = 2 * (got["w"] - tuned) + 2 * strength * scaled * (got["w"] - base)
    assert float(slope.abs().max()) < 1e-6 * (1 + strength)
    assert torch.allclose(got["w"][0], tuned[0])
    assert torch.equal(got["b"], tuned[0])


def test_dg_hard_in_the_metric_of_importance() -> None:
    base, omega = torch.randn(64, 40, dtype=torch.float64), torch.rand(64, 40)
    tuned = base + spiked(64, 40, 3)[1]
    got, _ = edit.repaired({"w": base}, {"w": tuned}, "importance-dg-hard", importance=importance(w=omega))
    mean = omega.mean()
    metric = ((omega + mean) / (2 * mean)).sqrt().double()
    assert torch.allclose(got["w"], plain(base, tuned, metric=metric), atol=1e-7)
    same, _ = edit.repaired(
        {"w": base}, {"w": tuned}, "importance-dg-hard", importance=importance(w=torch.ones(64, 40))
    )
    assert torch.allclose(same["w"], plain(base, tuned), atol=1e-12)


@pytest.mark.parametrize(("alpha", "source"), [(0.0, "base"), (1.0, "tuned")])
def test_wise_ft_ends(alpha: float, source: str) -> None:
    states = {
        "base": {"w": torch.randn(3, 2), "b": torch.randn(3)},
        "tuned": {"w": torch.randn(3, 2), "b": torch.randn(3)},
    }
    got, _ = edit.repaired(states["base"], states["tuned"], "wise-ft", settings=edit.Settings(alpha=alpha))
    assert all(torch.allclose(got[name], states[source][name], atol=1e-7) for name in got)


BAD_SETTINGS = [
    ({"scale": -1.0}, "scale must be 0 or more"),
    ({"alpha": 1.5}, "alpha must be between 0 and 1"),
    ({"strength": float("nan")}, "strength must be 0 or more"),
]


@pytest.mark.parametrize(("bad", "said"), BAD_SETTINGS, ids=[said for _, said in BAD_SETTINGS])
def test_settings_out_of_range(bad: dict[str, Any], said: str) -> None:
    with pytest.raises(ForgetlessError, match=said):
        edit.Settings(**bad)


@pytest.mark.usefixtures("unchecked")
def test_bad_input_in_memory() -> None:
    one, other = {"w": torch.ones(4, 4)}, {"w": torch.ones(4, 5)}
    with pytest.raises(ForgetlessError, match="different architectures: the shapes of 'w' differ"):
        edit.repaired(one, other)
    with pytest.raises(ForgetlessError, match="no tensor of the same name: one has 'w', the other 'v'"):
        edit.repaired(one, {"v": torch.ones(1)})
    with pytest.raises(ForgetlessError, match="'w' hold NaN"):
        edit.repaired(one, {"w": torch.full((4, 4), torch.nan)})
    with pytest.raises(ForgetlessError, match=r"base is a Linear, not a state dict; give model\.state_dict\(\)"):
        edit.repaired(torch.nn.Linear(2, 2), one)  # type: ignore[arg-type]
    with pytest.raises(ForgetlessError, match="'w' of tuned is on the meta device"):
        edit.repaired(one, {"w": torch.ones(4, 4, device="meta")})
    sharded = torch.ones(4, 4)
    sharded.full_tensor = sharded.clone  # type: ignore[attr-defined]
    with pytest.raises(ForgetlessError, match="'w' of tuned is sharded; gather"):
        edit.repaired(one, {"w": sharded})
    with pytest.raises(ForgetlessError, match="'w' of base is sparse; convert it"):
        edit.repaired({"w": torch.eye(4).to_sparse()}, one)
    with pytest.raises(
        ForgetlessError, match=r"importance is a str, not an Importance; read a file with Importance\.load"
    ):
        edit.repaired(one, one, "importance", importance="omega.safetensors")  # type: ignore[arg-type]
    with pytest.raises(ForgetlessError, match="no repair called 'best'"):
        edit.repaired(one, one, "best")
    with pytest.raises(ForgetlessError, match="needs the importance of the base"):
        edit.repaired(one, one, "importance")
    with pytest.raises(ForgetlessError, match="of another network"):
        edit.repaired(one, one, "importance", importance=importance(w=torch.ones(2)))
    with pytest.raises(ForgetlessError, match="0 everywhere"):
        edit.repaired(one, one, "importance", importance=importance(w=torch.zeros(4, 4)))


# On disk


def folder(path: Path, tensors: dict[str, Tensor], **config: object) -> Path:
    path.mkdir()
    save_file(tensors, path / "model.safetensors")
    (path / "config.json").write_text(json.dumps({"model_type": "tiny", **config}))
    (path / "tokenizer.json").write_text("{}")
    (path / "optimizer.pt").write_bytes(b"x")
    return path


def pair(tmp_path: Path) -> tuple[Path, Path, dict[str, Tensor], dict[str, Tensor]]:
    draw = torch.Generator().manual_seed(0)
    base = {f"l{k}.w": torch.randn(48, 32, generator=draw) for k in range(4)}
    base["norm"] = torch.randn(32, generator=draw)
    base["ids"] = torch.arange(3)
    tuned = {
        name: (each + 1e-3 * torch.randn(each.shape, generator=draw) if each.is_floating_point() else each)
        for name, each in base.items()
    }
    tuned["l0.w"] += torch.outer(torch.ones(48), torch.ones(32)) * 0.1
    base["tied"], tuned["tied"] = base["l0.w"].clone(), tuned["l0.w"].clone()
    return folder(tmp_path / "base", base), folder(tmp_path / "tuned", tuned), base, tuned


def test_a_folder_is_repaired_as_its_state_dict_is(tmp_path: Path) -> None:
    before, after, base, tuned = pair(tmp_path)
    facts = edit.repair(before, after, tmp_path / "out")
    got, want = load_file(tmp_path / "out" / "model.safetensors"), edit.repaired(base, tuned)
    assert got.keys() == tuned.keys()
    assert all(torch.equal(got[name], want[0][name]) for name in got)
    assert facts == {name: each for name, each in want[1].items() if name != "tied"}
    assert sorted(each.name for each in (tmp_path / "out").iterdir()) == [
        "config.json",
        "forgetless_repair.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    report = files.read_json(tmp_path / "out" / "forgetless_repair.json")
    assert report["method"] == "dg-hard"
    assert report["tensors"] == facts


@pytest.mark.parametrize("method", ["wise-ft", "dg-hard", "ties"])
def test_memory_holds_a_few_tensors_however_many_there_are(method: str, tmp_path: Path) -> None:
    """What a process takes in all is measured by benchmarks/repair.py."""
    size, many = 4 * 512 * 512, 24
    for name in ("base", "A", "B"):
        draw = torch.Generator().manual_seed(ord(name[0]))
        folder(tmp_path / name, {f"w{k}": torch.rand(512, 512, generator=draw) for k in range(many)})
    with Peak() as peak:
        if method in edit.REPAIRS:
            edit.repair(tmp_path / "base", tmp_path / "A", tmp_path / "out", method)
        else:
            models = [tmp_path / "A", tmp_path / "B"]
            edit.merge(models, tmp_path / "out", base=tmp_path / "base", method=method)
    blocks = 5 * size  # a tensor of this size is one block
    gram = 3 * 2 * size if method == "dg-hard" else 0
    assert size < peak.most <= 3 * size + blocks + gram < many * size


def test_what_was_stopped_goes_on_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, after, _, _ = pair(tmp_path)
    edit.repair(before, after, tmp_path / "whole")

    def stopping(name: str, done: int, of: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        edit.repair(before, after, tmp_path / "out", progress=stopping)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ForgetlessError, match="continue it with --resume"):
        edit.repair(before, after, tmp_path / "out")
    with pytest.raises(ForgetlessError, match=r"of another request \(scale differ"):
        edit.repair(before, after, tmp_path / "out", settings=edit.Settings(scale=2), resume=True)
    done: list[str] = []
    edit.repair(before, after, tmp_path / "out", resume=True, progress=lambda name, *more: done.append(name))
    assert len([name for name in done if name]) == 4
    for name in ("model.safetensors", "forgetless_repair.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not (tmp_path / "out.partial").exists()


def test_tensors_that_only_one_of_them_has_are_named(tmp_path: Path) -> None:
    """As warnings and in the report: a layer that is gone, and a new head."""
    before, _, base, tuned = pair(tmp_path)
    other = {**{name: each for name, each in tuned.items() if name != "l1.w"}, "head.w": torch.ones(2, 3)}
    after = folder(tmp_path / "other", other)
    with pytest.warns(UserWarning, match="lacks '") as caught:
        edit.repair(before, after, tmp_path / "out", "wise-ft")
    said = [f"{after} lacks 'l1.w' of {before}, and so does the result."]
    said.append(f"{before} lacks 'head.w' of {after}: nothing is repaired there.")
    assert [str(each.message) for each in caught] == said
    assert files.read_json(tmp_path / "out" / "forgetless_repair.json")["notes"] == said
    got = load_file(tmp_path / "out" / "model.safetensors")
    assert got.keys() == other.keys()
    assert torch.equal(got["head.w"], other["head.w"])
    with pytest.warns(UserWarning, match="tuned lacks 'l1.w' of base"):
        edit.repaired(base, other, "wise-ft")


@pytest.mark.parametrize("narrow", ["base", "tuned"])
def test_versions_of_different_types_are_told(narrow: str, tmp_path: Path) -> None:
    """As a warning and in the report; what is done is what the sentence says."""
    _, _, *states = pair(tmp_path)
    base, tuned = (
        {
            name: value.bfloat16() if which == narrow and value.is_floating_point() else value
            for name, value in each.items()
        }
        for which, each in zip(("base", "tuned"), states, strict=True)
    )
    before, after = folder(tmp_path / "b", base), folder(tmp_path / "t", tuned)
    types = ("float32", "bfloat16") if narrow == "base" else ("bfloat16", "float32")
    said = (
        f"{after} and {before} hold 6 of 6 tensors in different types, such as 'l0.w' as {types[0]} and {types[1]}: "
        "their difference is computed in the wider type (float32 at least) and holds what rounding to the narrower one "
        f"has changed; the result has the types of {after}."
    )
    with pytest.warns(UserWarning, match=re.escape(said)) as caught:
        edit.repair(before, after, tmp_path / "out", "wise-ft")
    assert len(caught) == 1
    assert files.read_json(tmp_path / "out" / "forgetless_repair.json")["notes"] == [said]
    got = load_file(tmp_path / "out" / "model.safetensors")
    assert all(got[name].dtype == tuned[name].dtype for name in tuned)
    want = base["l1.w"].float().lerp(tuned["l1.w"].float(), 0.5).to(tuned["l1.w"].dtype)
    assert torch.equal(got["l1.w"], want)
    with pytest.warns(UserWarning, match="tuned and base hold 6 of 6 tensors in different types"):
        edit.repaired(base, tuned, "wise-ft")


def test_versions_of_one_type_are_not_spoken_of(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    before, after, _, _ = pair(tmp_path)
    edit.repair(before, after, tmp_path / "out", "wise-ft")
    assert not recwarn.list
    assert "notes" not in files.read_json(tmp_path / "out" / "forgetless_repair.json")


def test_a_second_process_is_refused_while_the_first_one_goes_on(tmp_path: Path) -> None:
    before, after, _, _ = pair(tmp_path)
    edit.repair(before, after, tmp_path / "whole")
    refused: list[str] = []

    def meanwhile(name: str, done: int, of: int) -> None:
        for again in (edit.repair, edit.merge):
            inputs: Any = ([before, after],) if again is edit.merge else (before, after)
            with pytest.raises(ForgetlessError) as caught:
                again(*inputs, tmp_path / "out", resume=done % 2 == 0)
            refused.append(str(caught.value))

    edit.repair(before, after, tmp_path / "out", progress=meanwhile)
    assert set(refused) == {
        f"{tmp_path / 'out.partial'} is in use by another process ({os.getpid()}); wait until it ends, or choose "
        "another --out."
    }
    for file in (tmp_path / "whole").iterdir():
        assert (tmp_path / "out" / file.name).read_bytes() == file.read_bytes()
    assert len(list((tmp_path / "out").iterdir())) == len(list((tmp_path / "whole").iterdir()))


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path: Path) -> None:
    before, after, _, _ = pair(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    with pytest.raises(ForgetlessError, match="exists already and is not empty"):
        edit.repair(before, after, tmp_path / "out")
    assert [each.name for each in (tmp_path / "out").iterdir()] == ["mine"]


def test_bad_checkpoints(tmp_path: Path) -> None:
    before, after, base, tuned = pair(tmp_path)
    other = folder(tmp_path / "other", {**tuned, "l1.w": torch.ones(2, 2)})
    with pytest.raises(ForgetlessError, match=r"different architectures: the shapes of 'l1.w' differ, such as"):
        edit.repair(before, other, tmp_path / "out")
    kind = folder(tmp_path / "kind", tuned, model_type="llama")
    with pytest.raises(ForgetlessError, match="'tiny' and 'llama'"):
        edit.repair(before, kind, tmp_path / "out")
    broken = folder(tmp_path / "nan", {**tuned, "l2.w": torch.full((48, 32), torch.nan)})
    with pytest.raises(ForgetlessError, match=r"'l2.w' in .* holds NaN"):
        edit.repair(before, broken, tmp_path / "out2")
    with pytest.raises(ForgetlessError, match=r"'l2.w' in .* holds NaN"):  # and again, where it was stopped
        edit.repair(before, broken, tmp_path / "out2", resume=True)
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "pytorch_model.bin").write_bytes(b"x")
    for path in (pickled, pickled / "pytorch_model.bin"):
        with pytest.raises(ForgetlessError, match="is a pickle, which can run code"):
            edit.repair(before, path, tmp_path / "out")
    for name in ("consolidated.00.pth", "pytorch_model-00001-of-00002.bin"):
        (pickled / "pytorch_model.bin").rename(pickled / name)
        (pickled / "optimizer.pt").write_bytes(b"x")
        with pytest.raises(ForgetlessError, match=rf"{name} is a pickle, which can run code"):
            edit.repair(before, pickled, tmp_path / "out")
        (pickled / name).rename(pickled / "pytorch_model.bin")
    heads = folder(tmp_path / "heads", tuned, text={"num_attention_heads": 4, "head_dim": None})
    more = folder(tmp_path / "more", tuned, text={"num_attention_heads": 8, "head_dim": 8})
    with pytest.raises(ForgetlessError, match=r"of different architectures: 'num_attention_heads' is 4 and 8\."):
        edit.repair(heads, more, tmp_path / "out")
    with pytest.raises(ForgetlessError, match=r"base and .*base are the same model; name the one before fine-tuning"):
        edit.repair(before, before, tmp_path / "out")
    for dtype, said in (
        (torch.complex64, "'l3.w' of .* is complex64, which cannot be repaired"),
        (torch.int64, "'l3.w' is"),
    ):
        typed = folder(tmp_path / str(dtype), {**tuned, "l3.w": tuned["l3.w"].to(dtype)})
        with pytest.raises(ForgetlessError, match=said):
            edit.repair(before, typed, tmp_path / "out")
    (before / "model.safetensors").unlink()
    save_file(
        {name: each for name, each in base.items() if name != "l3.w"}, before / "model-00001-of-00002.safetensors"
    )
    names = dict.fromkeys(base, "model-00001-of-00002.safetensors") | {"l3.w": "model-00002-of-00002.safetensors"}
    (before / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    with pytest.raises(ForgetlessError, match=r"lacks 'model-00002-of-00002.safetensors': 1 of the 2"):
        edit.repair(before, after, tmp_path / "out")
    names.pop("l2.w")
    (before / "model-00002-of-00002.safetensors").write_bytes((after / "model.safetensors").read_bytes())
    (before / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    with pytest.raises(ForgetlessError, match=r"holds 'l2.w', which its index does not say"):
        edit.repair(before, after, tmp_path / "out")
    with pytest.raises(ForgetlessError, match="one of several files of a model; name their folder"):
        edit.repair(before / "model-00001-of-00002.safetensors", after, tmp_path / "out")
    quantized = folder(tmp_path / "quantized", tuned, quantization_config={"bits": 4})
    with pytest.raises(ForgetlessError, match="is quantized, so that its tensors are not its weights"):
        edit.repair(other, quantized, tmp_path / "out")


def test_a_parameter_with_two_names_is_repaired_by_the_one_that_has_an_importance(tmp_path: Path) -> None:
    draw = torch.Generator().manual_seed(0)
    old, new, omega = (torch.rand(40, 32, generator=draw) for _ in range(3))
    want, _ = edit.repaired({"w": old}, {"w": new}, "importance", importance=importance(w=omega))
    shared = {"a.head": new, "z.embed": new}
    measured = importance(**{"z.embed": omega})
    got, _ = edit.repaired({"a.head": old, "z.embed": old}, shared, "importance", importance=measured)
    assert torch.equal(got["z.embed"], want["w"])
    assert got["a.head"] is got["z.embed"]
    once = folder(tmp_path / "once", {"z.embed": old})
    twice = folder(tmp_path / "twice", {name: each.clone() for name, each in shared.items()})
    for number, base in enumerate((once, folder(tmp_path / "both", {"a.head": old, "z.embed": old.clone()}))):
        edit.repair(base, twice, tmp_path / f"out{number}", "importance", importance=measured)
        found = load_file(tmp_path / f"out{number}" / "model.safetensors")
        assert torch.equal(found["a.head"], want["w"])
        assert torch.equal(found["z.embed"], want["w"])


@pytest.mark.parametrize("method", ["wise-ft", "dg-hard"])
def test_a_parameter_that_was_tied_by_the_tuning_alone_is_repaired_apart(method: str, tmp_path: Path) -> None:
    draw = torch.Generator().manual_seed(0)
    first, second, new = (torch.rand(40, 32, generator=draw) for _ in range(3))
    before = {"embed": first, "head": second}
    got, _ = edit.repaired(before, {"embed": new, "head": new}, method)
    for name, old in before.items():
        assert torch.equal(got[name], edit.repaired({"w": old}, {"w": new}, method)[0]["w"])
    stored = folder(tmp_path / "tuned", {"embed": new, "head": new.clone()})
    edit.repair(folder(tmp_path / "base", before), stored, tmp_path / "out", method)
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert all(torch.equal(found[name], got[name]) for name in before)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.complex64])
def test_types_that_cannot_be_computed_with_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(ForgetlessError, match=r"'w' of tuned is \w+, which cannot be repaired; convert it to float32"):
        edit.repaired({"w": torch.ones(4, 4)}, {"w": torch.ones(4, 4).to(dtype)}, "wise-ft")


def test_a_configuration_that_nests_too_deeply_is_told(tmp_path: Path) -> None:
    before, after, *_ = pair(tmp_path)
    (after / "config.json").write_text("[" * 100_000)
    with pytest.raises(ForgetlessError, match=r"config\.json cannot be read as JSON: it nests too deeply"):
        edit.repair(before, after, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_result_that_would_not_be_finite_is_refused(tmp_path: Path) -> None:
    big, small = torch.full((40, 32), 3.3e38), torch.full((40, 32), -3.3e38)
    with pytest.raises(ForgetlessError, match="'w' would hold NaN or Inf as float32"):
        edit.repaired({"w": small}, {"w": big}, "wise-ft")
    before, after = folder(tmp_path / "b", {"w": small}), folder(tmp_path / "t", {"w": big})
    with pytest.raises(ForgetlessError, match="'w' would hold NaN or Inf as float32"):
        edit.repair(before, after, tmp_path / "out", "wise-ft")


def test_one_large_change_above_faint_noise_is_found() -> None:
    draw = torch.Generator().manual_seed(0)
    base = torch.zeros(256, 64, dtype=torch.float64)
    noise = 1e-7 * torch.randn(256, 64, generator=draw, dtype=torch.float64)
    tuned = noise.clone()
    tuned[3] += 1e3
    got, facts = edit.repaired({"w": base}, {"w": tuned})
    assert facts["w"]["kept"] == 1
    left = got["w"] - (tuned - noise)
    assert float(left.norm()) < 0.2 * float(noise.norm())


def test_a_device_that_is_not_there() -> None:
    with pytest.raises(ForgetlessError, match="the device 'nowhere' cannot be used"):
        edit.Settings(device="nowhere")


def test_what_stands_beside_the_weights_goes_along(tmp_path: Path) -> None:
    before, after, _, _ = pair(tmp_path)
    wanted = {"bpe.codes": "x", "source.spm": "x", "1_Pooling/config.json": "{}"}
    left = {"training_args.bin": "x", "checkpoint-5/config.json": "{}", "forgetless_merge.json": "{}", ".git/x": "x"}
    for name, content in {**wanted, **left}.items():
        (after / name).parent.mkdir(exist_ok=True)
        (after / name).write_text(content)
    (after / "config.json").write_text('{"model_type": "tiny", "time_step_limit": [0.0, Infinity]}')
    edit.repair(before, after, tmp_path / "out", "wise-ft")
    found = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert found == {
        *wanted,
        *("config.json", "tokenizer.json", "model.safetensors", "forgetless_repair.json"),
    }
    assert (tmp_path / "out" / "config.json").read_text() == (after / "config.json").read_text()


def test_results_inside_the_tuned_folder_do_not_go_along(tmp_path: Path) -> None:
    before, after, _, _ = pair(tmp_path)
    for number in range(2):
        edit.repair(before, after, after / f"repaired-{number}", "wise-ft")
        found = [path.name for path in (after / f"repaired-{number}").rglob("*") if path.is_dir()]
        assert found == []


def test_inputs_that_changed_are_another_request(tmp_path: Path) -> None:
    before, after, _, tuned = pair(tmp_path)

    def stopping(name: str, done: int, of: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        edit.repair(before, after, tmp_path / "out", progress=stopping)
    times = (after / "model.safetensors").stat()
    save_file({name: each + 1 for name, each in tuned.items()}, after / "model.safetensors")
    os.utime(after / "model.safetensors", ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(ForgetlessError, match=r"of another request \(checkpoint 2 differ"):
        edit.repair(before, after, tmp_path / "out", resume=True)
