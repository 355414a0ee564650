"""Bases in 4 and 8 bits: Ω of their dequantized weights, on bitsandbytes' own layers."""

from __future__ import annotations

import contextlib
import warnings
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

bnb = pytest.importorskip("bitsandbytes")
peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

import forgetless  # noqa: E402
from forgetless import ForgetlessError  # noqa: E402
from forgetless.integrations.parts import dequantized  # noqa: E402
from forgetless.integrations.peft import DeltaAnchor, base_importance  # noqa: E402
from forgetless.integrations.transformers import ForgetlessCallback  # noqa: E402
from forgetless.protect.forgetting.probes import Probes  # noqa: E402
from lora_models import adapters, layers, trained  # noqa: E402
from tiny_language import texts, tokenizer, wide_language_model  # noqa: E402
from warned import said  # noqa: E402

BODIES = ("first", "second", "third")
FLOAT = 8 * 64 * 64  # bytes of one of them in float, with its Ω


class Net(nn.Module):
    """Three linear layers that will be quantized, and two that will not."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.start = nn.Linear(5, 64)
        self.first, self.second, self.third = nn.Linear(64, 64), nn.Linear(64, 128), nn.Linear(128, 64, bias=False)
        self.head = nn.Linear(64, 3)
        for each in self.parameters():
            nn.init.normal_(each, std=0.2, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.start(x))
        return self.head(torch.tanh(self.third(torch.tanh(self.second(x + self.first(x))))))  # type: ignore[no-any-return]


def quantized(kind: str = "nf4", compute: torch.dtype = torch.float32, bodies: tuple[str, ...] = BODIES) -> Net:
    """The net as bitsandbytes has it."""
    net = Net()
    for name in bodies:
        layer = getattr(net, name)
        sizes = layer.in_features, layer.out_features, layer.bias is not None
        if kind == "int8":
            packed: Any = bnb.nn.Linear8bitLt(*sizes, has_fp16_weights=False, threshold=6.0)
            packed.weight = bnb.nn.Int8Params(layer.weight.data, requires_grad=False, has_fp16_weights=False)
        else:
            nested = kind == "nf4, nested"
            kept = {"quant_type": kind.partition(",")[0], "compress_statistics": nested}
            packed = bnb.nn.Linear4bit(*sizes, compute_dtype=compute, **kept)
            packed.weight = bnb.nn.Params4bit(layer.weight.data, requires_grad=False, module=packed, **kept)
        packed.bias = layer.bias
        setattr(net, name, packed.to("cpu"))  # quantizes
    return net.requires_grad_(False)


def in_float(net: Net) -> Net:
    """The float network of the dequantized weights."""
    twin = Net().requires_grad_(False)
    for name in ("start", "head"):
        getattr(twin, name).load_state_dict(getattr(net, name).state_dict())
    for name in BODIES:
        layer, mine = getattr(net, name), getattr(twin, name)
        held = dequantized.is_quantized(layer)
        mine.weight.data = (dequantized.weight_of(layer) if held else layer.weight.data).float()
        if mine.bias is not None:
            mine.bias.data = layer.bias.data.float()
    return twin


def adapted(net: Net, targets: tuple[str, ...] = BODIES, **options: Any) -> Any:
    return peft.get_peft_model(net, peft.LoraConfig(target_modules=list(targets), r=2, lora_alpha=6, **options))


def rows(count: int = 9) -> Tensor:
    return torch.randn(count, 5, generator=torch.Generator().manual_seed(1))


def expected(net: Net, *names: str) -> forgetless.Importance:
    twin = in_float(net)
    for name in names:
        twin.get_parameter(name).requires_grad_(True)
    return forgetless.mas(twin, rows())


@contextlib.contextmanager
def left_alone(model: nn.Module) -> Iterator[None]:
    """Afterwards every module, parameter and flag is what it was, and the model computes the same."""
    modules = {name: id(each) for name, each in model.named_modules()}
    flags = {name: (id(each), each.requires_grad) for name, each in model.named_parameters()}
    before = model(rows().requires_grad_()).detach()
    yield
    assert {name: id(each) for name, each in model.named_modules()} == modules
    assert {name: (id(each), each.requires_grad) for name, each in model.named_parameters()} == flags
    assert torch.equal(model(rows().requires_grad_()), before)


WEIGHTS = tuple(f"{name}.weight" for name in BODIES)


def same(found: forgetless.Importance, wanted: forgetless.Importance) -> None:
    assert list(found.sums) == list(wanted.sums)
    assert found.count == wanted.count
    for name, total in found.sums.items():
        torch.testing.assert_close(total, wanted.sums[name], rtol=1e-5, atol=1e-6 * float(wanted.sums[name].max()))


@pytest.mark.parametrize("kind", ["nf4", "fp4", "nf4, nested", "int8"])
def test_it_is_the_importance_of_the_dequantized_weights(kind: str) -> None:
    model = adapted(quantized(kind)).eval()
    wanted = expected(quantized(kind), *WEIGHTS)
    with left_alone(model), warnings.catch_warnings(record=True) as caught:
        found = base_importance(model, rows())
    assert not said(caught)  # on the fast path
    same(found, wanted)
    assert found.weights == wanted.weights


@pytest.mark.parametrize(
    ("at_once", "passes"), [(1, 3), (2 * FLOAT, 3), (3 * FLOAT, 2), (4 * FLOAT, 2), (5 * FLOAT, 1)]
)
def test_it_is_the_same_in_several_passes(at_once: int, passes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = adapted(quantized()).eval()
    whole = base_importance(model, rows())
    groups: list[list[int]] = []

    @contextlib.contextmanager
    def counted(module: nn.Module, held: Any) -> Iterator[None]:
        groups.append([each.in_features * each.out_features for each in held])
        with dequantized.dequantized(module, held):
            yield

    monkeypatch.setattr("forgetless.integrations.parts.base_importance.dequantized", counted)
    found = base_importance(model, [rows()[:4], rows()[4:]], at_once=at_once)
    same(found, whole)
    assert found.weights == whole.weights
    assert len(groups) == passes
    assert [size for group in groups for size in group] == [64 * 64, 64 * 128, 128 * 64]
    assert all(len(group) == 1 or 8 * sum(group) <= at_once for group in groups)


def test_layers_without_adapters_are_passed_through_quantized() -> None:
    model = adapted(quantized(), ("first", "head"), modules_to_save=["start"]).eval()
    names = ("start.weight", "start.bias", "first.weight", "head.weight")
    with warnings.catch_warnings(record=True) as caught:
        found = base_importance(model, rows())
    assert not said(caught)
    wanted = expected(quantized(), *names)
    for name in names:
        torch.testing.assert_close(found.sums[name], wanted.sums[name], rtol=1e-5, atol=1e-6)


def test_trained_adapters_are_part_of_what_is_measured() -> None:
    model = trained(adapted(quantized())).eval()
    twin = trained(adapted(in_float(quantized()))).eval()
    for mine, its in zip(adapters(model).values(), adapters(twin).values(), strict=True):
        its.data = mine.data
    same(base_importance(model, rows()), base_importance(twin, rows()))


def test_an_earlier_measurement_is_pooled_in_every_pass() -> None:
    model = adapted(quantized()).eval()
    earlier = base_importance(model, rows(4))
    found = base_importance(model, rows(), into=earlier, at_once=1)
    assert found.count == 13
    for name, total in base_importance(model, rows()).sums.items():
        torch.testing.assert_close(found.sums[name], earlier.sums[name] + total)


def test_left_out_weights_are_not_measured() -> None:
    model = adapted(quantized()).eval()
    assert list(base_importance(model, rows(), exclude="second").sums) == ["first.weight", "third.weight"]
    with pytest.raises(ForgetlessError, match="exclude='secnd' matches no parameter"):
        base_importance(model, rows(), exclude="secnd")


def test_bfloat16_is_computed_in_where_the_layer_does() -> None:
    model = adapted(quantized(compute=torch.bfloat16)).eval()
    twin = in_float(quantized(compute=torch.bfloat16))

    class Lower(nn.Module):
        def __init__(self, layer: nn.Linear) -> None:
            super().__init__()
            self.weight, self.bias = nn.Parameter(layer.weight.bfloat16()), layer.bias

        def forward(self, x: Tensor) -> Tensor:
            dtype = torch.float64 if x.dtype == torch.float64 else torch.bfloat16
            bias = None if self.bias is None else self.bias.to(dtype)
            return nn.functional.linear(x.to(dtype), self.weight.to(dtype), bias).to(x.dtype)  # type: ignore[no-any-return]

    for name in BODIES:
        setattr(twin, name, Lower(getattr(twin, name)))
    same(base_importance(model, rows()), forgetless.mas(twin, rows()))


def test_frozen_layers_keep_no_float_weights_for_the_backward_pass() -> None:
    model = adapted(quantized(), ("first",)).eval()
    layer = model.base_model.model.third
    made: list[weakref.ref[Tensor]] = []

    def noted(weight: Tensor) -> Tensor:
        made.append(weakref.ref(weight))
        return weight

    with dequantized.dequantized(model, []):
        stand_in = model.base_model.model.third
        own = stand_in.made
        stand_in.made = lambda dtype=None: noted(own(dtype))
        x = torch.randn(4, 128, requires_grad=True)
        out = stand_in(x)
        assert [each() for each in made] == [None]  # gone before the way back
        (found,) = torch.autograd.grad(out.sum(), x)
        assert [each() for each in made] == [None, None]  # made once more there
    torch.testing.assert_close(found, torch.ones(4, 64) @ dequantized.weight_of(layer))


def test_autocast_keeps_no_float_weights_either() -> None:
    """It would cast W and keep the cast of every frozen layer for the backward pass."""
    model = adapted(quantized(), ("first",)).eval()
    with dequantized.dequantized(model, []):
        stand_in = model.base_model.model.third
        made: list[torch.dtype] = []
        own = stand_in.made
        stand_in.made = lambda dtype=None: made.append(dtype) or own(dtype)
        x = torch.randn(4, 128, requires_grad=True)
        with torch.autocast("cpu", torch.bfloat16):
            out = stand_in(x)
        out.sum().backward()
    assert made == [torch.bfloat16, torch.bfloat16]  # on the way back once more


def test_adapters_on_float_layers_alone_are_measured_through_quantized_ones() -> None:
    for kind in ("nf4", "int8"):
        model = adapted(quantized(kind), ("start",)).eval()
        with left_alone(model), warnings.catch_warnings(record=True) as caught:
            found = base_importance(model, rows())
        assert not said(caught)
        same(found, expected(quantized(kind), "start.weight"))


def test_what_a_layer_settles_in_its_first_pass_is_still_open() -> None:
    """bitsandbytes computes in the dtype of the first rows, and casts the bias to it for good."""
    net = quantized(compute=torch.bfloat16)
    net.second = quantized(compute=None).second
    model = adapted(net).eval()
    base_importance(model, rows())
    first, second = (getattr(model.base_model.model, name).base_layer for name in ("first", "second"))
    assert first.bias.dtype == torch.float32
    assert second.compute_dtype is None
    assert not second.compute_type_is_set


@pytest.mark.parametrize("kind", [bnb.nn.Embedding4bit, bnb.nn.Embedding8bit])
def test_a_quantized_embedding_is_left_as_it_is(kind: Any) -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.first, self.head = kind(16, 64).to("cpu"), quantized().first, nn.Linear(64, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.tanh(self.first(self.words(x).mean(1))))  # type: ignore[no-any-return]

    torch.manual_seed(0)
    tokens, x = Tokens().requires_grad_(False), torch.randint(16, (5, 4))
    model = peft.get_peft_model(tokens, peft.LoraConfig(target_modules=["first"], r=2)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # which rows belong to which sample is not known of 4-bit embeddings
        found = base_importance(model, x)
    embedded = tokens.words(x)
    twin = nn.Linear(64, 64)
    twin.load_state_dict({"weight": dequantized.weight_of(quantized().first).float(), "bias": quantized().first.bias})
    wanted = forgetless.mas(twin, embedded, forward=lambda net, rows: tokens.head(torch.tanh(net(rows.mean(1)))))
    torch.testing.assert_close(found.sums["first.weight"], wanted.sums["weight"], rtol=1e-5, atol=1e-7)

    with pytest.raises(ForgetlessError, match=r"'words' has adapters around a quantized layer that is not linear"):
        base_importance(peft.get_peft_model(tokens, peft.LoraConfig(target_modules=["words"], r=2)), x)


def test_a_layer_that_is_not_quantized_yet_is_refused() -> None:
    net = Net()
    net.first = bnb.nn.Linear4bit(64, 64, compute_dtype=torch.float32)
    with pytest.raises(ForgetlessError, match=r"shape \(64, 64\) is not quantized yet.*move the model"):
        base_importance(adapted(net), rows())


def test_weights_that_are_quantized_in_every_pass_are_taken_as_they_are() -> None:
    net = Net().requires_grad_(False)
    layer = bnb.nn.Linear8bitLt(64, 64, has_fp16_weights=True).requires_grad_(False)
    layer.load_state_dict(net.first.state_dict())
    net.first = layer
    found, twin = base_importance(adapted(net, ("first",)), rows()), Net().requires_grad_(False)
    twin.first.weight.requires_grad_(True)
    same(found, forgetless.mas(twin, rows()))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("size", [0, -5, float("nan"), "2GB", None, True])
def test_at_once_is_a_number_of_bytes(size: Any) -> None:
    with pytest.raises(ForgetlessError, match=r"at_once must be a number of bytes, .*, not "):
        base_importance(adapted(quantized()), rows(), at_once=size)


def test_an_earlier_measurement_of_more_weights_is_refused() -> None:
    """The others would be lost."""
    earlier = base_importance(adapted(quantized()), rows())
    with pytest.raises(
        ForgetlessError, match=r"into= does not fit: 'second\.weight', 'third\.weight' are in it and are"
    ):
        base_importance(adapted(quantized(), ("first",)), rows(), into=earlier)


@pytest.mark.parametrize("error", [KeyboardInterrupt, torch.OutOfMemoryError])
def test_what_stops_it_halfway_leaves_the_model_as_it_was(error: type[BaseException]) -> None:
    model = adapted(quantized()).train()
    model.base_model.model.first.eval()
    modes = {name: each.training for name, each in model.named_modules()}

    class Stopped:
        passes = 0

        def __iter__(self) -> Iterator[Tensor]:
            self.passes += 1
            yield rows()
            if self.passes == 2:
                raise error

    with left_alone(model), pytest.raises(error):
        base_importance(model, Stopped(), at_once=1)
    assert {name: each.training for name, each in model.named_modules()} == modes


def trainable_start() -> Net:
    net = quantized()
    net.start.requires_grad_(True)
    return net


def test_a_quantized_model_without_adapters_is_told_what_is_left_out() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = forgetless.mas(trainable_start(), rows())
    assert any("'third.weight' are quantized" in str(each.message) for each in caught)
    same(found, expected(quantized(), "start.weight", "start.bias"))


def asked_by_probes(model: Any) -> None:
    Probes(model, rows())


def asked_by_a_measurement(model: Any) -> None:
    model.base_model.model.start.requires_grad_(True)
    forgetless.mas(model, rows(), exclude="*.lora_*")
    model.base_model.model.start.requires_grad_(False)


def asked_by_distillation(model: Any) -> None:
    kept = forgetless.Distillation(model, rows())
    optimizer = torch.optim.SGD(adapters(model).values(), lr=0.0)
    kept.attach(optimizer)
    model(rows()).square().sum().backward()
    optimizer.step()
    kept.detach()


@pytest.mark.parametrize("ask", [asked_by_probes, asked_by_a_measurement, asked_by_distillation])
@pytest.mark.filterwarnings("ignore")
def test_asking_leaves_gradients_as_they_were(ask: Any) -> None:
    """On some CPUs bitsandbytes repacks a layer in eval mode, and from then on no gradients pass through it."""

    def gradients() -> list[Tensor]:
        model.zero_grad()
        model(rows()).square().sum().backward()
        return [each.grad.clone() for each in adapters(model).values() if each.grad is not None]

    model = trained(adapted(quantized()))
    before = gradients()
    ask(model)
    after = gradients()
    assert len(before) == len(after) == 6
    for mine, its in zip(after, before, strict=True):
        assert torch.equal(mine, its)


def test_layers_that_were_packed_for_inference_are_refused_without_adapters_too() -> None:
    net = trainable_start()
    net.third.weight.quant_state.packing_format_for_cpu = True
    with pytest.raises(ForgetlessError, match=r"has packed 'third\.weight' for inference on this CPU"):
        forgetless.mas(net, rows())


def test_a_layer_that_was_packed_for_inference_is_refused_and_stays_as_it_is() -> None:
    """Turning it back would leave other weights than those that the layer computes with."""
    model = adapted(quantized()).eval()
    state = model.base_model.model.third.base_layer.weight.quant_state
    state.packing_format_for_cpu = True  # as eval mode leaves it on some processors
    with pytest.raises(
        ForgetlessError, match=r"shape \(64, 128\) was packed for inference on this CPU.*load the model"
    ):
        base_importance(model, rows())
    assert state.packing_format_for_cpu


def misread(monkeypatch: pytest.MonkeyPatch) -> Any:
    model = adapted(quantized()).eval()
    whole = dequantized.weight_of
    monkeypatch.setattr(dequantized, "weight_of", lambda layer: whole(layer).flip(0))
    return model


def test_a_layer_that_computes_something_else_is_refused_and_everything_left_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = misread(monkeypatch)
    with (
        left_alone(model),
        pytest.raises(ForgetlessError, match=r"'first\.weight' computes something else than its dequantiz"),
    ):
        base_importance(model, rows())


def test_a_layer_that_cannot_run_is_refused_by_name() -> None:
    model = adapted(quantized("int8")).eval()
    layer = model.base_model.model.second.base_layer
    layer.weight.SCB = layer.state.SCB = None  # as PEFT leaves it on a CPU
    with pytest.raises(ForgetlessError, match=r"in 8 bits of shape .* has lost its scales"):
        base_importance(model, rows())


def test_what_cannot_be_gone_through_twice_is_refused() -> None:
    model = adapted(quantized()).eval()
    with pytest.raises(
        ForgetlessError, match=r"in 3 passes .* data that can be gone through once only .*at_once=163840"
    ):
        base_importance(model, iter([rows()]), at_once=1)
    with pytest.raises(ForgetlessError, match=r"in 3 passes .* until= will not do"):
        base_importance(model, [rows()], at_once=1, until=0.5)
    assert base_importance(model, iter([rows()])).count == 9

    class Shrinking:
        left = 9

        def __iter__(self) -> Iterator[Tensor]:
            yield rows()[: self.left]
            self.left -= 1

    with pytest.raises(ForgetlessError, match="gave 9 samples in the first pass and 8 in a later one"):
        base_importance(model, Shrinking(), at_once=1)


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_the_importance_of_the_float_network_fits_as_well(kind: str) -> None:
    found = forgetless.mas(Net(), rows(), exclude=["start", "head", "*.bias"])
    with warnings.catch_warnings(record=True) as caught:
        anchor = DeltaAnchor(adapted(quantized(kind)), found, 5.0)
    assert not said(caught)
    for name, each in anchor.importance.items():
        torch.testing.assert_close(each, found.mean()[name])


@pytest.mark.parametrize(("kind", "options"), [("nf4", {}), ("nf4", {"use_dora": True}), ("int8", {})])
def test_an_anchor_holds_a_quantized_base(kind: str, options: dict[str, bool]) -> None:
    """At a large strength ΔW stays where it is, whatever the loss asks for."""
    moved = {}
    for strength in (0.0, 1e4):
        torch.manual_seed(0)
        model = adapted(quantized(kind), **options)
        anchor = DeltaAnchor(model, base_importance(model, rows()), strength)
        optimizer = torch.optim.AdamW(adapters(model).values(), lr=0.01, weight_decay=0)
        anchor.attach(optimizer)
        for _ in range(20):
            optimizer.zero_grad()
            model(rows()).square().sum().backward()
            optimizer.step()
        anchor.strength = 1.0
        moved[strength] = float(anchor.drift())
        assert strength == 0 or anchor.status().applied >= 19
    assert moved[0.0] > 0
    assert moved[1e4] < 0.05 * moved[0.0]


def test_the_change_that_dora_makes_is_read_off_the_dequantized_weights() -> None:
    torch.manual_seed(0)
    model = adapted(quantized(), use_dora=True)
    torch.manual_seed(0)
    twin = adapted(in_float(quantized()), use_dora=True)
    for each in (model, twin):
        trained(each)
    for mine, its in zip(adapters(model).values(), adapters(twin).values(), strict=True):
        its.data = mine.data
    found = expected(quantized(), *WEIGHTS)
    drifts = []
    for each in (model, twin):
        anchor = DeltaAnchor(each, None, 1.0)
        assert set(layers(each)) == set(WEIGHTS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fresh = DeltaAnchor(each, found, 1.0)
        anchor.load_state_dict({name: x for name, x in fresh.state_dict().items() if "kept" not in name})
        for weight in anchor._weights.values():
            weight.kept = None
        drifts.append(float(anchor.drift()))
    assert drifts[0] > 0
    assert drifts[0] == pytest.approx(drifts[1], rel=1e-5)


def test_a_bias_keeps_its_type() -> None:
    model = adapted(quantized(compute=torch.bfloat16)).eval()
    base_importance(model, rows())
    assert model.base_model.model.first.base_layer.bias.dtype == torch.float32


def test_layers_are_grouped_in_order() -> None:
    assert dequantized.grouped([3, 3, 3, 9, 1], 6) == [[0, 1], [2], [3], [4]]
    assert dequantized.grouped([], 6) == []


def in_four_bits(folder: Path) -> Any:
    """A tiny language model as people load one in 4 bits, with fresh adapters."""
    wide_language_model().save_pretrained(folder)
    kinds = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.float32}
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=transformers.BitsAndBytesConfig(**kinds), dtype=torch.float32
    )
    torch.manual_seed(0)
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")
    return peft.get_peft_model(peft.prepare_model_for_kbit_training(model), config).train()


def trainer_of(folder: Path, model: Any, callback: ForgetlessCallback, **settings: Any) -> Any:
    """Trains on eight texts."""
    rows = [dict(tokenizer()(text)) for text in texts(8, 1)]
    collator = transformers.DataCollatorForLanguageModeling(tokenizer(), mlm=False)
    plan = {"max_steps": 1, "per_device_train_batch_size": 2, "learning_rate": 1e-2, "seed": 3, **settings}
    quiet = {"use_cpu": True, "report_to": [], "disable_tqdm": True, "save_strategy": "no"}
    arguments = transformers.TrainingArguments(str(folder / "run"), **plan, **quiet)
    tokens = {"processing_class": tokenizer()}
    return transformers.Trainer(model, arguments, collator, train_dataset=rows, callbacks=[callback], **tokens)


def test_the_callback_measures_in_several_passes(tmp_path: Path) -> None:
    """Of texts in a list the trainer's batches can be gone through again."""
    found = []
    for size in (1, 4 << 30):
        callback = ForgetlessCallback(texts(6, 2), at_once=size)
        trainer_of(tmp_path, in_four_bits(tmp_path / "model"), callback).train()
        assert callback.anchor is not None
        found.append(callback.anchor.importance)
    for name, each in found[0].items():
        torch.testing.assert_close(each, found[1][name], rtol=1e-4, atol=1e-6 * float(each.max()))


def test_lightning_measures_in_several_passes() -> None:
    lightning = pytest.importorskip("lightning")
    from forgetless.integrations.lightning import ForgetlessCallback as Protecting

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = adapted(quantized())

        def forward(self, x: Tensor) -> Any:
            return self.net(x)

        def training_step(self, batch: Any, _: int) -> Any:
            return self.net(batch[0]).square().mean()

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(adapters(self).values(), lr=0.01)

    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(rows()), batch_size=4)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    protecting = Protecting(loader, at_once=1)
    lightning.Trainer(max_epochs=1, enable_model_summary=False, callbacks=[protecting], **quiet).fit(Module(), loader)
    assert protecting.anchor is not None
    wanted = base_importance(adapted(quantized()), rows()).mean()
    for name, each in protecting.anchor.importance.items():
        torch.testing.assert_close(each, wanted[name.removeprefix("net.")], rtol=1e-5, atol=1e-6)


def test_at_once_is_refused_without_adapters(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, wide_language_model(), ForgetlessCallback(texts(6, 2), at_once=1 << 30))
    with pytest.raises(ForgetlessError, match="at_once= is for a base in 4 or 8 bits under LoRA adapters"):
        trainer.train()


def test_the_callback_measures_and_holds_a_model_in_four_bits(tmp_path: Path) -> None:
    drift = {}
    for strength in (0.0, 1e6):
        callback = ForgetlessCallback(texts(8, 1), strength=strength)
        trainer_of(tmp_path, in_four_bits(tmp_path / "model"), callback, max_steps=6).train()
        assert callback.anchor is not None
        names = callback.anchor.importance
        assert names
        assert all("q_proj" in name or "down_proj" in name for name in names)
        callback.anchor.strength = 1.0
        drift[strength] = float(callback.anchor.drift())
    assert 0 < drift[1e6] < 0.1 * drift[0.0]
