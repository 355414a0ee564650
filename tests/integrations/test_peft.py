"""`DeltaAnchor` and `base_importance` on PEFT's own layers, against the penalty written densely."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

peft = pytest.importorskip("peft")

import forgetless  # noqa: E402
from forgetless import ForgetlessError  # noqa: E402
from forgetless.integrations.peft import DeltaAnchor, base_importance  # noqa: E402
from lora_models import (  # noqa: E402
    KINDS,
    SCALED,
    Net,
    adapters,
    layers,
    moved,
    penalty,
    random_importance,
    trained,
    words,
    wrapped,
)
from warned import said  # noqa: E402

STRENGTH = 0.7


def dense_gradients(model: nn.Module, kept: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """`∂/∂θ λ Σ Ω (ΔW − Δ*)²` by autograd."""
    sides = adapters(model)
    total = STRENGTH * penalty(model, random_importance(model), kept)
    found = torch.autograd.grad(total, list(sides.values()), allow_unused=True)
    return {name: torch.zeros_like(sides[name]) if g is None else g for name, g in zip(sides, found, strict=True)}


def added(model: nn.Module, anchor: DeltaAnchor) -> dict[str, Tensor]:
    """What the anchor adds to the gradients in a step."""
    sides = adapters(model)
    optimizer = torch.optim.SGD(sides.values(), lr=0)
    anchor.attach(optimizer, how="gradient")
    for each in sides.values():
        each.grad = torch.ones_like(each)
    optimizer.step()
    anchor.detach()
    return {name: each.grad - 1 for name, each in sides.items()}


@pytest.mark.filterwarnings("ignore:with how='gradient' SGD")
@pytest.mark.parametrize("kind", [*KINDS, *SCALED])
def test_the_gradient_is_that_of_the_dense_penalty(kind: str) -> None:
    model = trained({**KINDS, **SCALED}[kind]())
    anchor = DeltaAnchor(model, None, STRENGTH)
    anchor.load_state_dict(DeltaAnchor(model, random_importance(model), STRENGTH).state_dict())
    for each in anchor._weights.values():
        each.kept = None  # θ* is the base
    expected = dense_gradients(model)
    for name, found in added(model, anchor).items():
        torch.testing.assert_close(found, expected[name], rtol=1e-9, atol=1e-9, msg=name)
    torch.testing.assert_close(
        float(anchor.drift()), float(penalty(model, random_importance(model))), rtol=1e-9, atol=1e-12
    )


@pytest.mark.filterwarnings("ignore:with how='gradient' SGD")
@pytest.mark.parametrize("kind", [*KINDS, *SCALED])
def test_an_anchor_of_trained_adapters_keeps_what_they_add(kind: str) -> None:
    model = trained({**KINDS, **SCALED}[kind]())
    kept = {name: moved(layer).detach() for name, layer in layers(model).items()}
    anchor = DeltaAnchor(model, random_importance(model), STRENGTH)
    assert anchor.drift() < 1e-24
    trained(model, seed=5)
    expected = dense_gradients(model, kept)
    for name, found in added(model, anchor).items():
        torch.testing.assert_close(found, expected[name], rtol=1e-9, atol=1e-9, msg=name)


def settled(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, decay: bool) -> Tensor:
    """Train on a quadratic in ΔW; the largest entry of the gradient of the penalized loss at the end."""
    made = torch.Generator().manual_seed(7)
    targets = {n: torch.randn(moved(m).shape, generator=made).double() / 2 for n, m in layers(model).items()}

    def loss() -> Tensor:
        return sum((moved(layer) - targets[name]).square().sum() / 2 for name, layer in layers(model).items())

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: (1 - t / steps) ** 2 if decay else 1.0)
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
        schedule.step()
    whole = loss() + STRENGTH * penalty(model, random_importance(model))
    return torch.cat([g.flatten() for g in torch.autograd.grad(whole, list(adapters(model).values()))]).abs().max()


@pytest.mark.parametrize(
    ("kind", "rate"),
    [("LoRA", 0.1), ("several adapters", 0.05), ("Conv1D, fan_in_fan_out", 0.1), ("Embedding", 0.2), ("Conv2d", 0.1)],
)
def test_a_pull_ends_at_the_optimum_of_the_penalized_loss(kind: str, rate: float) -> None:
    model = KINDS[kind]()
    optimizer = torch.optim.SGD(adapters(model).values(), lr=rate, momentum=0.6)
    DeltaAnchor(model, random_importance(model), STRENGTH).attach(optimizer, how="pull")
    assert settled(model, optimizer, 300, decay=False) < 3e-5


def test_with_adam_it_ends_there_as_the_rate_decays() -> None:
    model = KINDS["Conv2d"]()
    optimizer = torch.optim.AdamW(adapters(model).values(), lr=0.05, weight_decay=0)
    DeltaAnchor(model, random_importance(model), STRENGTH).attach(optimizer)
    assert settled(model, optimizer, 300, decay=True) < 0.01  # 0.002; without the penalty's part in A it is 1


@pytest.mark.parametrize("strength", [1e3, 1e12, 1e38])
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
@pytest.mark.parametrize("fresh", [True, False])
def test_no_strength_makes_the_pull_diverge(strength: float, kind: type, fresh: bool) -> None:
    model = wrapped(r=4, target_modules=["words", "filter", "body", "head"]).float()
    if not fresh:
        trained(model)
    anchor = DeltaAnchor(model, random_importance(model), strength)
    optimizer = kind(adapters(model).values(), lr=0.1)
    anchor.attach(optimizer)
    before = {name: each.detach().norm() for name, each in adapters(model).items()}
    for seed in range(20):
        optimizer.zero_grad()
        (10 * model(words(seed))).square().sum().backward()
        optimizer.step()
    for name, each in adapters(model).items():
        assert bool(torch.isfinite(each).all()), name
        assert float(each.norm()) < 20 * (float(before[name]) + 2), name
    assert anchor.drift() < 100 / strength + 1e-9


def test_where_nothing_matters_the_adapters_move_as_without_it() -> None:
    ends = []
    for protected in (False, True):
        model = wrapped()
        optimizer = torch.optim.AdamW(adapters(model).values(), lr=0.01)
        if protected:
            found = random_importance(model)
            zero = forgetless.Importance({name: torch.zeros_like(each) for name, each in found.sums.items()}, 4)
            DeltaAnchor(model, zero, 1e6).attach(optimizer)
        for seed in range(5):
            optimizer.zero_grad()
            model(words(seed)).square().sum().backward()
            optimizer.step()
        ends.append(list(adapters(model).values()))
    torch.testing.assert_close(*ends, rtol=1e-12, atol=1e-15)


def test_adams_first_step_does_not_kill_an_adapter() -> None:
    model = wrapped(target_modules=["body"])
    optimizer = torch.optim.Adam(adapters(model).values(), lr=1e-3)
    DeltaAnchor(model, random_importance(model), 1e3).attach(optimizer)
    a = layers(model)["body.weight"].lora_A["default"].weight
    before = a.detach().clone()
    model(words(0)).square().sum().backward()
    optimizer.step()  # B is 0, so A has no gradient and Adam no D
    assert float((a - before).abs().max()) <= 2.1e-3


def tokens(seed: int = 0) -> Any:
    return {"input_ids": torch.randint(32, (5, 7), generator=torch.Generator().manual_seed(seed))}


def language_model() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"vocab_size": 32, "n_positions": 8, "n_embd": 8, "n_layer": 1, "n_head": 2}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes))  # head and embedding are tied


def test_base_weights_measure_the_same_before_and_after_wrapping() -> None:
    model = language_model()
    before = forgetless.mas(model, tokens())
    options = {"target_modules": ["c_attn", "wte"], "modules_to_save": ["ln_f"], "fan_in_fan_out": True}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT: fan_in_fan_out fits one of the two only
        model = peft.get_peft_model(model, peft.LoraConfig(**options))
    model.train()
    asked = {name: each.requires_grad for name, each in model.named_parameters()}
    after = base_importance(model, tokens())
    names = {"wte.weight", "h.0.attn.c_attn.weight", "ln_f.weight", "ln_f.bias"}
    assert set(after.sums) == {f"transformer.{name}" for name in names}
    for name, total in after.sums.items():
        assert torch.equal(total, before.sums[name]), name
        assert after.weights[name] == before.weights[name]
    assert {name: each.requires_grad for name, each in model.named_parameters()} == asked
    again = base_importance(model, tokens(), into=after)
    assert again.count == 2 * after.count


def test_the_importance_of_trained_adapters_is_that_of_the_merged_weights() -> None:
    model = trained(wrapped())
    found = base_importance(model, words(3))
    layers(model)  # before merging
    merged = model.merge_and_unload().requires_grad_(True)
    expected = forgetless.mas(merged, words(3))
    for name, total in found.sums.items():
        torch.testing.assert_close(total, expected.sums[name], rtol=1e-9, atol=1e-12)
        assert found.weights[name] == expected.weights[name]


def test_copies_and_biases_are_kept_by_an_ordinary_anchor() -> None:
    model = wrapped(target_modules=["body"], modules_to_save=["head"], bias="all")
    found = base_importance(model, words(3))
    assert {"head.weight", "head.bias", "body.weight", "body.bias"} <= set(found.sums)
    anchor = DeltaAnchor(model, found, 1e9)
    assert set(anchor.importance) == set(found.sums)
    trainable = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.SGD(trainable, lr=0.1)
    anchor.attach(optimizer)
    before = {name: each.detach().clone() for name, each in model.named_parameters()}
    for each in trainable:
        each.grad = torch.ones_like(each)
    optimizer.step()
    copy = "base_model.model.head.modules_to_save.default.weight"
    moves = {name: float((each - before[name]).abs().median()) for name, each in model.named_parameters()}
    assert moves[copy] < 1e-6
    assert moves["base_model.model.body.base_layer.bias"] < 1e-6
    assert moves["base_model.model.body.lora_A.default.weight"] > 1e-3


def test_an_embedding_that_a_head_is_tied_to_gives_the_head_its_importance() -> None:
    model = language_model()
    found = forgetless.mas(model, tokens())
    assert "lm_head.weight" not in found.sums
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.get_peft_model(model, peft.LoraConfig(target_modules=["lm_head"]))
    anchor = DeltaAnchor(model, found, 1.0)
    torch.testing.assert_close(anchor.importance["lm_head.weight"], found.mean()["transformer.wte.weight"])


@pytest.mark.parametrize("how", ["pull", "gradient"])
def test_accumulation_clipping_and_loss_scaling_change_nothing(how: str) -> None:
    def end(parts: int, scaler: Any, fused: bool = False) -> list[Tensor]:
        model = trained(wrapped()).float()
        optimizer = torch.optim.AdamW(adapters(model).values(), lr=0.01, fused=fused)
        DeltaAnchor(model, random_importance(model), 50.0).attach(optimizer, how=how)
        trained(model, seed=8, size=0.1)
        for seed in range(3):
            optimizer.zero_grad()
            for batch in words(seed, 8).chunk(parts):
                loss = 1e-3 * model(batch).square().sum()
                (loss if scaler is None else scaler.scale(loss)).backward()
            if scaler is not None:
                scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(adapters(model).values(), 1e-4)  # far below the penalty's gradient
            if scaler is None:
                optimizer.step()
            else:
                scaler.step(optimizer)
                scaler.update()
        return list(adapters(model).values())

    plain = end(1, None)
    torch.testing.assert_close(end(4, None), plain, rtol=1e-4, atol=1e-6)
    for fused in (False, True):
        scaled = end(1, torch.amp.GradScaler("cpu", init_scale=1024.0), fused)
        torch.testing.assert_close(scaled, plain, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("how", ["pull", "gradient"])
def test_a_step_that_the_scaler_skips_moves_nothing(how: str, fused: bool) -> None:
    model = trained(wrapped()).float()
    anchor = DeltaAnchor(model, random_importance(model), 50.0)
    trained(model, seed=8)
    optimizer = torch.optim.AdamW(adapters(model).values(), lr=0.01, fused=fused)
    anchor.attach(optimizer, how=how)
    scaler = torch.amp.GradScaler("cpu")
    before = [each.detach().clone() for each in adapters(model).values()]
    scaler.scale(model(words(0)).sum() * torch.inf).backward()
    scaler.step(optimizer)
    torch.testing.assert_close(list(adapters(model).values()), before, rtol=0, atol=0)


def test_a_closure_computes_the_gradients_that_the_penalty_joins() -> None:
    ends = []
    for closed in (False, True):
        model = trained(wrapped())
        anchor = DeltaAnchor(model, random_importance(model), STRENGTH)
        trained(model, seed=8)
        optimizer = torch.optim.Adam(adapters(model).values(), lr=0.01)
        anchor.attach(optimizer, how="gradient")

        def loss(model: nn.Module = model, optimizer: Any = optimizer) -> Tensor:
            optimizer.zero_grad()
            found = model(words(0)).square().sum()
            found.backward()
            return found

        if closed:
            optimizer.step(loss)
        else:
            loss()
            optimizer.step()
        ends.append(list(adapters(model).values()))
    torch.testing.assert_close(*ends)


def test_sgd_is_told_that_gradients_may_diverge_and_what_does_not() -> None:
    model = wrapped()
    anchor = DeltaAnchor(model, random_importance(model), 1.0)
    with pytest.warns(UserWarning, match="how='gradient' SGD diverges at a large strength.*how='pull'"):
        anchor.attach(torch.optim.SGD(adapters(model).values(), lr=0.1), how="gradient")
    assert anchor.status().steps == 0


def acts(model: nn.Module, anchor: DeltaAnchor, optimizer: torch.optim.Optimizer) -> bool:
    """Whether a step with gradients of 0 brings trained adapters nearer to Δ*."""
    anchor.attach(optimizer)
    trained(model, seed=8)
    before = anchor.drift()
    for each in adapters(model).values():
        each.grad = torch.zeros_like(each)
    optimizer.step()
    return anchor.drift() < before


@pytest.mark.parametrize("how", ["Adafactor", "RMSprop", "16 bits", "DoRA"])
def test_the_way_is_chosen_by_what_is_trained(how: str) -> None:
    model = wrapped(use_dora=how == "DoRA")
    if how == "16 bits":
        model = model.to(torch.bfloat16)
    sides = adapters(model).values()
    optimizer = {"Adafactor": torch.optim.Adafactor, "RMSprop": torch.optim.RMSprop}.get(how, torch.optim.AdamW)
    made = optimizer(sides, lr=1e-3)
    anchor = DeltaAnchor(model, random_importance(model), 5.0)
    assert acts(model, anchor, made)
    assert anchor.status().applied == 1
    anchor.detach()
    assert anchor.status().steps == 1
    refusals = {
        "Adafactor": "how far Adafactor moves A and B together",
        "16 bits": "are in 16 bits, where small pulls are lost",
        "DoRA": "DoRA scales the rows of 'body.weight', 'head.weight'",
    }
    if how in refusals:
        with pytest.raises(ForgetlessError, match=f"{refusals[how]}.*how='gradient'"):
            anchor.attach(made, how="pull")


def test_a_wrapper_stands_for_the_optimizer_inside() -> None:
    model = wrapped()
    optimizer = torch.optim.AdamW(adapters(model).values(), lr=1e-3)
    anchor = DeltaAnchor(model, random_importance(model), 5.0)
    assert acts(model, anchor, SimpleNamespace(optimizer=optimizer, step=optimizer.step))


def test_adapters_that_are_trained_elsewhere_are_told() -> None:
    model = wrapped()
    anchor = DeltaAnchor(model, random_importance(model), 5.0)
    anchor.attach(torch.optim.AdamW(adapters(model).values(), lr=1e-3))
    other = torch.optim.AdamW(adapters(model).values(), lr=1e-3)

    def train_with_the_other() -> None:
        for seed in range(12):
            model(words(seed)).square().sum().backward()
            other.step()

    with pytest.warns(UserWarning, match="lora_.*is being trained, and not by steps of the AdamW"):
        train_with_the_other()


def test_hold_share_finds_the_strength_that_holds_a_share_of_the_entries() -> None:
    model = wrapped()
    anchor = DeltaAnchor(model, random_importance(model), forgetless.HoldShare(0.5, steps=100))
    optimizer = torch.optim.AdamW(adapters(model).values(), lr=1e-3)
    anchor.attach(optimizer)
    assert anchor.strength == 0
    for seed in range(4):
        optimizer.zero_grad()
        model(words(seed)).square().sum().backward()
        optimizer.step()
    gains = anchor._steps.gains()  # s of every entry of B at λ = 1
    assert float((100 * anchor.strength * gains >= 1).double().mean()) == pytest.approx(0.5, abs=0.15)
    assert gains.numel() == 2 * (6 + 3)
    a = layers(model)["head.weight"].lora_A["default"].weight.detach()
    omega = random_importance(model).mean()["head.weight"]
    state = optimizer.state[layers(model)["head.weight"].lora_B["default"].weight]
    divisor = (state["exp_avg_sq"] / (1 - 0.999**4)).sqrt() + 1e-8
    expected = 2 * 3.0**2 * (omega @ a.square().T) * 1e-3 / divisor
    torch.testing.assert_close(gains[-6:], expected.flatten())
    anchor.strength = 1e9
    assert anchor.status().frozen_fraction == anchor.frozen_fraction() > 0.9


def test_a_file_holds_the_anchor_whatever_the_adapters_become(tmp_path: Path) -> None:
    model = trained(wrapped(modules_to_save=["mix"]))
    found = base_importance(model, words(3))
    anchor = DeltaAnchor(model, found, 3.0)
    trained(model, seed=8)
    anchor.save(tmp_path / "anchor.safetensors")
    again = DeltaAnchor.load(tmp_path / "anchor.safetensors", model)
    assert again.strength == 3.0
    assert float(again.drift()) == float(anchor.drift()) > 0
    assert again.drift().per_layer == anchor.drift().per_layer
    for name, each in anchor.importance.items():
        assert torch.equal(again.importance[name], each)
    narrow = DeltaAnchor(model, found, 3.0, compact=True)
    narrow.save(tmp_path / "narrow.safetensors")
    assert DeltaAnchor.load(tmp_path / "narrow.safetensors", model).importance["body.weight"].dtype == torch.bfloat16
    other = wrapped(seed=5, modules_to_save=["mix"])
    with pytest.warns(UserWarning, match="over another base than the model has now: 'body.weight', 'head.weight'"):
        DeltaAnchor.load(tmp_path / "anchor.safetensors", other)


@pytest.mark.parametrize("merged", [False, True])
def test_a_second_task_is_kept_from_where_the_first_ended(merged: bool, tmp_path: Path) -> None:
    model = wrapped()
    first, second = random_importance(model), random_importance(model, seed=3)
    anchor = DeltaAnchor(model, first, 1.0)
    trained(model)
    if merged:
        anchor.save(tmp_path / "anchor")
        base = model.merge_and_unload()
        model = peft.get_peft_model(base, peft.LoraConfig(target_modules=["body", "head"], r=2)).double()
        with pytest.warns(UserWarning, match="over another base"):
            anchor = DeltaAnchor.load(tmp_path / "anchor", model)
    anchor.consolidate(second, gamma=0.5)
    assert anchor.drift() < 1e-24
    for name, each in anchor.importance.items():
        torch.testing.assert_close(each, 0.5 * first.mean()[name] + second.mean()[name])


def test_weights_other_than_those_measured_are_told() -> None:
    model = wrapped()
    found = base_importance(model, words(3))
    trained(model)
    now = "at other weights than the model has now, adapters included: 'body.weight'"
    with pytest.warns(UserWarning, match=f"{now}.*trained, and the model as it computes now is what is kept"):
        anchor = DeltaAnchor(model, found, 1.0)
    with pytest.warns(UserWarning, match=f"{now}.*Measure it again"):
        anchor.consolidate(found)
    other = wrapped(seed=1)
    with pytest.warns(UserWarning, match=f"{now}.*Measure it again"):
        DeltaAnchor(other, found, 1.0)
    with warnings.catch_warnings(record=True) as caught:
        DeltaAnchor(model, base_importance(model, words(3)), 1.0)
    assert not said(caught)


def test_fresh_adapters_are_told_where_they_would_protect_nothing() -> None:
    model = wrapped()
    with pytest.warns(UserWarning, match="'body', 'head' are fresh .*forgetless.DeltaAnchor"):
        found = forgetless.mas(model, words(3))
    assert not found.sums["body.lora_A.default.weight"].any()
    with pytest.warns(UserWarning, match="'body', 'head' are fresh .*this anchor does not protect the base"):
        forgetless.Anchor(model, found, 1.0)
    with pytest.warns(UserWarning, match="are fresh"):
        forgetless.Anchor(model, random_importance(model), 1.0)
    with warnings.catch_warnings(record=True) as caught:
        forgetless.mas(trained(model), words(3))
    assert not said(caught)


@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_adapters_that_start_as_a_part_of_the_weight_are_kept_as_that(start: str) -> None:
    torch.manual_seed(0)
    model = peft.get_peft_model(Net(), peft.LoraConfig(target_modules=["body"], r=2, init_lora_weights=start))
    with warnings.catch_warnings(record=True) as caught:
        anchor = DeltaAnchor(model, base_importance(model, words(3)), 1e12)
    assert not said(caught)
    before = model(words(4)).detach()
    assert acts(model, anchor, torch.optim.SGD(adapters(model).values(), lr=1e-3))
    torch.testing.assert_close(model(words(4)), before, rtol=0.1, atol=0.02)


def merged_adapters() -> nn.Module:
    model = trained(wrapped())
    model.merge_adapter()
    return model


def with_dora_and_lora() -> nn.Module:
    model = wrapped(use_dora=True)
    model.add_adapter("second", peft.LoraConfig(target_modules=["body"], r=3))
    model.base_model.set_adapter(["default", "second"])
    return model


def grouped() -> nn.Module:
    net = nn.Sequential(nn.Conv2d(4, 4, 2, groups=2))
    return peft.get_peft_model(net, peft.LoraConfig(target_modules=["0"], r=2))


def prompted() -> nn.Module:
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    return peft.get_peft_model(language_model(), config)


def sharded() -> nn.Module:
    model = wrapped()
    for each in adapters(model).values():
        each.full_tensor = each.detach  # as DTensors have it
    return model


REFUSED_MODELS = {
    "no adapters": (Net, "Net has no LoRA adapters: .*get_peft_model.*forgetless.Anchor"),
    "IA3": (
        lambda: peft.get_peft_model(Net(), peft.IA3Config(target_modules=["body"], feedforward_modules=["body"])),
        r"'body' has adapters of another kind \(peft.tuners.ia3.layer.Linear\)",
    ),
    "LoHa": (lambda: peft.get_peft_model(Net(), peft.LoHaConfig(target_modules=["body"])), "tuners.loha.layer.Linear"),
    "prompt tuning": (prompted, r"'default' learns prompts \(PROMPT_TUNING\) and changes no weight"),
    "a grouped convolution": (grouped, "'0' is a grouped convolution"),
    "merged adapters": (merged_adapters, r"'body' are merged into the weight; call unmerge_adapter\(\)"),
    "DoRA beside LoRA": (with_dora_and_lora, "'body' has several active adapters, one of them DoRA's"),
    "a bias in the adapter": (lambda: wrapped(lora_bias=True), "'default' of 'body' has a bias"),
    "FSDP2": (sharded, "'default' of 'body' is sharded over processes"),
    "aLoRA": (
        lambda: wrapped(alora_invocation_tokens=[1]),
        "'default' of 'body' is a variant of LoRA .ALoraLinearVariant",
    ),
}


@pytest.mark.parametrize("what", REFUSED_MODELS)
def test_adapters_that_cannot_be_followed_are_refused_by_name(what: str) -> None:
    make, sentence = REFUSED_MODELS[what]
    model = make()
    with pytest.raises(ForgetlessError, match=sentence):
        DeltaAnchor(model, None, 1.0)
    with pytest.raises(ForgetlessError, match=sentence):
        base_importance(model, words(3))


def test_trained_dora_is_measured_after_merging() -> None:
    model = wrapped(use_dora=True)
    before = forgetless.mas(unwrapped_copy(model), words(3))
    found = base_importance(model, words(3))
    torch.testing.assert_close(found.sums["body.weight"], before.sums["body.weight"])
    with pytest.raises(ForgetlessError, match=r"DoRA scales the rows of 'body\.weight', .*merged model"):
        base_importance(trained(model), words(3))


def unwrapped_copy(model: nn.Module) -> nn.Module:
    net = Net().double()
    base = {name.replace("base_layer.", ""): each for name, each in model.get_base_model().state_dict().items()}
    net.load_state_dict({name: base[name] for name in net.state_dict()})
    return net


BAD_IMPORTANCES = {
    "of the adapters": ({"body.lora_A.default.weight": (2, 4)}, "the importance is of the adapters"),
    "of another model": ({"tail.weight": (2, 2)}, "whose base has no 'tail.weight'"),
    "of other weights": ({"mix.weight": (15, 4)}, "none of the weights that adapters change .'body.weight'"),
    "of another shape": ({"body.weight": (2, 2)}, r"'body.weight' has shape \(2, 2\), and the weight \(6, 4\)"),
}


@pytest.mark.parametrize("what", BAD_IMPORTANCES)
def test_an_importance_that_is_not_the_bases_is_refused(what: str) -> None:
    shapes, sentence = BAD_IMPORTANCES[what]
    found = forgetless.Importance({name: torch.ones(shape) for name, shape in shapes.items()}, 1)
    with pytest.raises(ForgetlessError, match=sentence):
        DeltaAnchor(wrapped(), found, 1.0)


@pytest.mark.usefixtures("unchecked")
def test_what_is_no_importance_and_no_strength_is_refused() -> None:
    model = wrapped()
    with pytest.raises(ForgetlessError, match=r"an importance is what .* not dict"):
        DeltaAnchor(model, {}, 1.0)
    with pytest.raises(ForgetlessError, match="DriftBudget moves single weights back"):
        DeltaAnchor(model, random_importance(model), forgetless.DriftBudget(1))
    with pytest.raises(ForgetlessError, match="strength must be a finite number"):
        DeltaAnchor(model, random_importance(model), -1)


OPTIMIZERS = {
    "of another model": (lambda _: torch.optim.SGD(Net().parameters(), lr=1), "none of the active adapters of 'body"),
    "several": (lambda sides: [torch.optim.SGD([side], lr=1) for side in sides], "several optimizers train"),
    "LBFGS": (torch.optim.LBFGS, "LBFGS moves weights in a way"),
}


@pytest.mark.parametrize("what", OPTIMIZERS)
def test_optimizers_that_cannot_be_followed_are_refused(what: str) -> None:
    make, sentence = OPTIMIZERS[what]
    model = wrapped()
    with pytest.raises(ForgetlessError, match=sentence):
        DeltaAnchor(model, random_importance(model), 1.0).attach(make(list(adapters(model).values())))


def test_a_refusal_changes_nothing(tmp_path: Path) -> None:
    model = wrapped()
    anchor = DeltaAnchor(model, random_importance(model), 1.0)
    optimizer = torch.optim.SGD(adapters(model).values(), lr=1)
    with pytest.raises(ForgetlessError, match="how must be"):
        anchor.attach(optimizer, how="push")
    anchor.attach(optimizer)
    with pytest.raises(ForgetlessError, match="attached already"):
        anchor.attach(optimizer)
    with pytest.raises(ForgetlessError, match="gamma must be between"):
        anchor.consolidate(random_importance(model), gamma=2)
    anchor.save(tmp_path / "anchor")
    with pytest.raises(ForgetlessError, match=r"no adapter of the model changes 'body\.weight'"):
        DeltaAnchor.load(tmp_path / "anchor", wrapped(target_modules=["words"]))
    before = {name: each.clone() for name, each in anchor.state_dict().items()}
    next(iter(adapters(model).values())).data.fill_(torch.nan)
    with pytest.raises(ForgetlessError, match=r"the adapters of 'body\.weight' have NaN or Inf"):
        anchor.consolidate(random_importance(model))
    assert all(torch.equal(each, before[name]) for name, each in anchor.state_dict().items())


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("strength", None, "lacks its 'strength'"),
        ("strength", torch.tensor(-1.0), "strength must be"),
        ("importance.body.weight", torch.full((6, 4), -1.0), "a negative importance in 'importance.body.weight'"),
        ("importance.body.weight", torch.full((6, 4), torch.nan), "NaN or Inf in 'importance.body.weight'"),
        ("importance.body.weight", torch.ones(6, 4, dtype=torch.int64), "no tensor of real numbers"),
        ("left.body.weight", None, "incomplete for 'body.weight'"),
        ("left.body.weight", torch.ones(6, 1), "which do not fit it"),
        ("left.tail.weight", torch.ones(6, 1), "incomplete for 'tail.weight'"),
        ("surprise", torch.ones(1), "unexpected key 'surprise'"),
        ("dial.taken", torch.ones(2), "2 numbers as its 'dial.taken'"),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(key: str, value: Tensor | None, sentence: str) -> None:
    model = trained(wrapped())
    anchor = DeltaAnchor(model, random_importance(model), 1.0)
    state = {**anchor.state_dict(), key: value}
    if value is None:
        del state[key]
    before = {name: each.clone() for name, each in anchor.state_dict().items()}
    with pytest.raises(ForgetlessError, match=sentence):
        anchor.load_state_dict(state)
    assert all(torch.equal(each, before[name]) for name, each in anchor.state_dict().items())
