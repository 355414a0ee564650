"""What cannot be measured gets one sentence that says what, where and what to do; and the model is left unchanged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import forgetless
from exactness import unchanged, worst
from forgetless import ForgetlessError, Importance
from forgetless.measure.engine import refusals

Case = tuple[Callable[[], nn.Module], Callable[[], Any], dict[str, Any], str]


class By(nn.Module):
    """`function(module, x)` beside a linear layer."""

    def __init__(self, function: Callable[[Any, Any], Any], **modules: nn.Module) -> None:
        super().__init__()
        self.lin, self.function = nn.Linear(4, 4), function
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, x: Any) -> Any:
        return self.function(self, x)


def by(function: Callable[[Any, Any], Any], **modules: nn.Module) -> Callable[[], nn.Module]:
    return lambda: By(function, **modules)


def x(*shape: int) -> Callable[[], Tensor]:
    return lambda: torch.randn(shape or (4, 4))


def broken(value: float, where: str = "lin.weight") -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        model = By(lambda m, x: m.norm(m.lin(x)), norm=nn.BatchNorm1d(4))
        with torch.no_grad():
            dict([*model.named_parameters(), *model.named_buffers()])[where].view(-1)[1] = value
        return model

    return build


def spoiled(value: float) -> Callable[[], Tensor]:
    def build() -> Tensor:
        data = torch.randn(4, 4)
        data[2, 1] = value
        return data

    return build


def routed(m: Any, x: Tensor) -> Tensor:
    """The two samples of a batch with the largest first feature take another way."""
    chosen = torch.zeros(len(x), 1).index_fill_(0, x[:, 0].topk(min(2, len(x))).indices, 1)
    return m.gate(chosen * x) + m.lin(x)


class Root(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x**2).sqrt()


def overflowing() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)).half()
    with torch.no_grad():
        model[1].weight.fill_(6e4)
    return model


def large_gradient() -> nn.Module:
    """Finite outputs whose squared norm's gradient is not, in float16."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)).half()
    with torch.no_grad():
        model[1].weight.fill_(1.0), model[1].bias.fill_(4e4)
    return model


def apart() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4, device="meta"))


CASES: dict[str, Case] = {
    "batch norm without running statistics": (
        lambda: nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, track_running_stats=False)),
        x(),
        {},
        r"what '1' \(BatchNorm1d\) computes for a sample depends on the other samples .* give it running statistics",
    ),
    "batch-dependent routing": (
        by(lambda m, x: m.route(x), route=By(routed, gate=nn.Linear(4, 4))),
        lambda: torch.randn(6, 4).sort(0).values,
        {},
        r"what 'route(\.gate)?' \(\w+\) computes for a sample depends on the other samples of its batch or on chance",
    ),
    "noise in eval mode": (
        by(lambda m, x: m.noise(m.lin(x)), noise=By(lambda m, x: m.lin(x) + torch.randn_like(x))),
        x(),
        {},
        r"what 'noise' \(By\) computes .* or on chance, even in eval mode",
    ),
    "an output that is no float tensor": (
        by(lambda m, x: m.lin(x).argmax(1)),
        x(),
        {},
        "the output is torch.int64, not a float tensor: it has no gradient",
    ),
    "an output that carries no gradient": (
        by(lambda m, x: m.lin(x).detach()),
        x(),
        {},
        "no parameter of By takes part in the output .* carries no gradient",
    ),
    "an output under no_grad": (by(torch.no_grad()(lambda m, x: m.lin(x))), x(), {}, r"computed under no_grad\?"),
    "several outputs": (
        by(lambda m, x: (m.lin(x), x)),
        x(),
        {},
        r"not one tensor; choose with output= or forward= from 0 \(4, 4\), 1 \(4, 4\)|from 0 \(2, 4\), 1 \(2, 4\)",
    ),
    "no tensor at all": (by(lambda m, x: "text"), x(), {}, r"from no tensors \(a str\)"),
    "an output that is not there": (
        by(lambda m, x: {"a": m.lin(x)}),
        x(),
        {"output": "b"},
        r"the model's output has no tensor 'b'; it has 'a' \(2, 4\)",
    ),
    "forward= that gives something else": (
        lambda: nn.Linear(4, 4),
        x(),
        {"forward": lambda model, x: None},
        r"what forward= returned is not one tensor; choose with output= or forward= from no tensors \(a NoneType\)",
    ),
    "forward= that adds up over the batch": (
        lambda: nn.Linear(4, 4),
        x(),
        {"forward": lambda model, x: model(x).sum()},
        r"the output has shape \(\) for 2 samples: its first axis must be the sample axis",
    ),
    "forward= that loses samples": (
        lambda: nn.Linear(4, 4),
        x(),
        {"forward": lambda model, x: model(x)[1:]},
        r"the output has shape \(1, 4\) for 2 samples",
    ),
    "forward= of floats that are no tensor": (
        lambda: nn.Linear(4, 4),
        x(),
        {"forward": lambda model, x: model(x).tolist()},
        "what forward= returned is not one tensor",
    ),
    "output= that gives something else": (
        lambda: nn.Linear(4, 4),
        x(),
        {"output": lambda result: 1.0},
        "what output= returned is not one tensor",
    ),
    "float16 that overflows forward": (
        overflowing,
        lambda: torch.ones(4, 4).half(),
        {},
        r"the output of '1' \(Linear\) is NaN or Inf .* in float16 use bfloat16 or float32",
    ),
    "float16 that overflows backward": (
        large_gradient,
        lambda: torch.ones(4, 4).half(),
        {},
        r"the gradients of '0\.weight' overflow torch.float16; measure in bfloat16 or float32",
    ),
    "a root at 0": (
        lambda: nn.Sequential(nn.Linear(4, 4, bias=False), Root()),
        lambda: torch.cat([x()(), torch.zeros(1, 4)]),
        {},
        r"the gradients of '0\.weight' are NaN or Inf, though the output is finite: .* root, a norm or a power at 0",
    ),
    "NaN in weights": (broken(float("nan")), x(), {}, r"the weights of 'lin\.weight' hold NaN or Inf; the network is"),
    "Inf in weights": (broken(float("inf")), x(), {}, r"the weights of 'lin\.weight' hold NaN or Inf"),
    "NaN in statistics": (
        broken(float("nan"), "norm.running_var"),
        x(),
        {},
        r"the weights of 'norm\.running_var' hold NaN",
    ),
    "NaN in inputs": (lambda: nn.Linear(4, 4), spoiled(float("nan")), {}, "NaN or Inf: batch 0, sample 2; clean"),
    "Inf in inputs": (lambda: nn.Linear(4, 4), spoiled(float("inf")), {}, "NaN or Inf: batch 0, sample 2; clean"),
    "NaN in the second batch": (
        lambda: nn.Linear(4, 4),
        lambda: [torch.randn(3, 4), spoiled(float("nan"))()],
        {},
        "NaN or Inf: batch 1, sample 2",
    ),
    "an activation that is NaN": (
        by(lambda m, x: m.root(m.lin(x) - 9), root=By(lambda m, x: (-1 - m.lin(x).square()).sqrt())),
        x(),
        {},
        r"the output of 'root' \(By\) is NaN or Inf for these inputs",
    ),
    "no data": (lambda: nn.Linear(4, 4), list, {}, "the data hold no samples, so there is nothing to measure"),
    "an empty batch": (lambda: nn.Linear(4, 4), x(0, 4), {}, "the data hold no samples"),
    "a batch without samples to count": (
        lambda: nn.Linear(4, 4),
        lambda: torch.tensor(1.0),
        {},
        "a batch holds no tensor with a sample axis",
    ),
    "data of another kind": (lambda: nn.Linear(4, 4), lambda: 3, {}, "data must be a tensor, a tuple, a dict"),
    "batches of another kind": (
        lambda: nn.Linear(4, 4),
        lambda: [3],
        {},
        "a batch must be a tensor, a tuple with the inputs first or a dict of tensors, not int",
    ),
    "nothing to measure": (nn.Tanh, x(), {}, r"Tanh has no trainable parameter to measure: unfreeze some"),
    "everything frozen": (
        lambda: nn.Linear(4, 4).requires_grad_(False),
        x(),
        {},
        r"Linear has no trainable parameter to measure: unfreeze some \(requires_grad_\(True\)\)",
    ),
    "excluding what is not there": (
        lambda: nn.Linear(4, 4),
        x(),
        {"exclude": "head"},
        "exclude='head' matches no parameter of Linear; its parameters are 'weight', 'bias'",
    ),
    "tensors on different devices": (
        apart,
        x(),
        {},
        r"the model is on several devices: '0\.weight' on cpu, '1\.weight' on meta; move it to one",
    ),
    "a model without values": (
        lambda: nn.Linear(4, 4, device="meta"),
        x(),
        {},
        r"'weight' is on the meta device and has no values",
    ),
    "a batch size of zero": (
        lambda: nn.Linear(4, 4),
        x(),
        {"batch_size": 0},
        "batch_size must be a whole number of 1 or more, not 0",
    ),
    "a relative error out of range": (lambda: nn.Linear(4, 4), x(), {"until": 1.5}, "until must be a relative error"),
    "a model that does not take the data": (
        lambda: nn.Linear(4, 4),
        x(4, 3),
        {},
        r"Linear does not take the first batch \(inputs of shape \(2, 3\)\): mat1 and mat2 shapes cannot be multiplied",
    ),
}


@pytest.mark.parametrize("what", CASES)
def test_mas_refuses(what: str) -> None:
    build, data, options, sentence = CASES[what]
    torch.manual_seed(0)
    model, batch = build(), data()
    meta = any(parameter.device.type == "meta" for parameter in model.parameters())
    with nullcontext() if meta else unchanged(model), pytest.raises(ForgetlessError, match=sentence) as caught:
        forgetless.mas(model, batch, progress=False, **options)
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("unchecked")
def test_an_unknown_form() -> None:
    with pytest.raises(ForgetlessError, match='form must be "norm" or "vector", not \'matrix\''):
        forgetless.mas(nn.Linear(4, 4), torch.randn(2, 4), form="matrix")  # type: ignore[arg-type]


def test_an_importance_of_another_model_or_estimator() -> None:
    data = torch.randn(4, 4)
    other = forgetless.mas(nn.Linear(4, 3), data, progress=False)
    with pytest.raises(ForgetlessError, match=r"as into= does not fit the model: it differs in shape: weight \(3, 4\)"):
        forgetless.mas(nn.Linear(4, 4), data, into=other, progress=False)
    named = Importance({"head.weight": torch.ones(4, 4)}, 3)
    with pytest.raises(ForgetlessError, match=r"it lacks 'weight', 'bias', has 'head\.weight' besides"):
        forgetless.mas(nn.Linear(4, 4), data, into=named, progress=False)
    local_mas = forgetless.local_mas(nn.Linear(4, 4), data, progress=False)
    with pytest.raises(ForgetlessError, match="an importance by 'local-mas' cannot be merged with one by 'mas'"):
        forgetless.mas(nn.Linear(4, 4), data, into=local_mas, progress=False)
    with pytest.raises(ForgetlessError, match=r"until= needs an into= that was itself measured with until="):
        forgetless.mas(nn.Linear(4, 3), data, into=other, until=0.5, progress=False)


def test_an_estimator_that_cannot_serve_the_model_says_which_can() -> None:
    with pytest.raises(ForgetlessError, match=r"needs the logits of classes.*or measure what any output has with"):
        forgetless.fisher(nn.Conv2d(1, 2, 1), torch.randn(2, 1, 3, 3), progress=False)
    idle = By(lambda m, x: x * x.sum(1, keepdim=True))
    with pytest.raises(ForgetlessError, match="no parameter of By takes part"):
        forgetless.local_mas(idle, torch.randn(3, 4), progress=False)


class Raises(nn.Module):
    """Raises in the middle of its forward or its backward pass, from the second call on."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.lin, self.norm, self.where, self.calls = nn.Linear(4, 4), nn.BatchNorm1d(4), where, [0]

    def forward(self, x: Tensor) -> Tensor:
        self.calls[0] += 1
        x = self.norm(self.lin(x))
        if self.where == "forward" and self.calls[0] >= 2:
            raise KeyError("forward")
        return _Raises.apply(x) if self.where == "backward" else x  # type: ignore[no-any-return, no-untyped-call]


class _Raises(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Tensor:
        raise KeyError("backward")


@pytest.mark.parametrize("estimator", ["mas", "local_mas", "fisher"])
@pytest.mark.parametrize("where", ["forward", "backward", "data"])
def test_no_trace_is_left_after_an_exception(where: str, estimator: str) -> None:
    def batches() -> Iterator[Tensor]:
        yield torch.randn(3, 4)
        raise KeyError("data")

    model = Raises(where).train()
    model.lin.bias.requires_grad_(False)
    model(torch.randn(5, 4)).sum().backward() if where != "backward" else None
    model.calls[0] = 0
    data = batches() if where == "data" else torch.randn(3, 4)
    torch.manual_seed(0)
    if where == "backward" and estimator == "local_mas":
        pytest.skip("local MAS has no backward pass through the network")
    expected = KeyError if where == "data" else ForgetlessError
    with unchanged(model), pytest.raises(expected, match=where) as caught:
        getattr(forgetless, estimator)(model, data, progress=False)
    assert where == "data" or isinstance(caught.value.__cause__, KeyError)
    if where != "backward":
        model.calls[0] = -5
        model(torch.randn(5, 4)).sum().backward()  # and it trains on


def missing(m: Any, x: Tensor) -> Tensor:
    return m.lin(torch.nan_to_num(x))  # type: ignore[no-any-return]


class Causal(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention, self.out = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: Tensor, mask: Tensor, top: Tensor | None = None) -> Tensor:
        return self.out(self.attention(x, x, x, attn_mask=mask, need_weights=False)[0])  # type: ignore[no-any-return]


CAUSAL = nn.Transformer.generate_square_subsequent_mask(5)
FINITE: dict[str, tuple[Callable[[], nn.Module], Any]] = {
    "NaN for what is missing": (lambda: By(missing), spoiled(float("nan"))()),
    "Inf that is clamped": (lambda: By(lambda m, x: m.lin(x.clamp(-3, 3))), spoiled(float("inf"))()),
    "a mask of -inf": (Causal, {"x": torch.randn(4, 5, 4), "mask": CAUSAL}),
    "a bound": (Causal, {"x": torch.randn(4, 5, 4), "mask": torch.zeros(5, 5), "top": torch.tensor(float("inf"))}),
}


@pytest.mark.parametrize("batch_size", [None, 1])
@pytest.mark.parametrize("what", FINITE)
def test_what_is_not_finite_may_be_meant(what: str, batch_size: int | None) -> None:
    build, batch = FINITE[what]
    torch.manual_seed(0)
    model = build().eval()
    found = forgetless.mas(model, batch, batch_size=batch_size, progress=False)
    assert worst(found, forgetless.reference.mas(model, batch)) < 1e-3


class Begins(nn.Module):
    """Not finite from `name` on, for samples whose first feature is above 9."""

    def __init__(self, value: float, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.first, self.spoils, self.last = nn.Linear(4, 4), Spoils(value), nn.Linear(4, 4)
        self.to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.spoils(self.first(x.nan_to_num(0, 0, 0)), x))  # type: ignore[no-any-return]


class Spoils(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor, given: Tensor) -> Tensor:
        return torch.where(given[:, :1].nan_to_num(0, 0, 0) > 9, self.value, x)


@pytest.mark.parametrize("batch_size", [None, 1, 3])
@pytest.mark.parametrize(
    ("value", "dtype", "cause"),
    [
        (float("inf"), torch.float32, "it overflows float32, so check the scale"),
        (float("nan"), torch.float32, "check for a division by 0"),
        (float("inf"), torch.bfloat16, "it overflows bfloat16"),
        (float("inf"), torch.float16, "the largest float16 is 65,504, so in float16 use bfloat16"),
    ],
)
def test_the_module_where_it_began_and_the_cause(
    value: float, dtype: torch.dtype, cause: str, batch_size: int | None
) -> None:
    torch.manual_seed(0)
    data = torch.randn(7, 4, dtype=dtype)
    data[5, 0] = 10
    where = rf"the output of 'spoils' \(Spoils\) is NaN or Inf for these inputs: batch 1, sample 5; {cause}"
    with pytest.raises(ForgetlessError, match=where):
        forgetless.mas(Begins(value, dtype), [data[:4], data], batch_size=batch_size, progress=False)


def test_a_squared_norm_that_overflows() -> None:
    model = nn.Linear(4, 4)
    with pytest.raises(ForgetlessError, match="the squared norm of the output is NaN or Inf: batch 0, sample 1"):
        forgetless.mas(model, torch.tensor([[1.0] * 4, [1e25] * 4, [1.0] * 4]), progress=False)


def test_sentence_makers_never_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("while composing")

    monkeypatch.setattr(refusals, "_visit", fail)
    with pytest.raises(ForgetlessError, match="NaN or Inf"):
        forgetless.mas(Begins(float("nan")), torch.full((3, 4), 10.0), progress=False)
    with pytest.raises(ForgetlessError, match="depends on the other samples"):
        forgetless.mas(nn.Sequential(nn.BatchNorm1d(4, track_running_stats=False)), torch.randn(4, 4), progress=False)


def test_pictures_of_bytes_and_lists_of_samples_are_told_what_to_do():
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(72, 2))
    with pytest.raises(ForgetlessError, match=r"the inputs are torch.uint8 and the weights torch.float32, so convert"):
        forgetless.mas(model, torch.zeros(2, 3, 8, 8, dtype=torch.uint8), progress=False)
    with pytest.raises(ForgetlessError, match=r"so the data are a list of samples: give them as one tensor \(torch.st"):
        forgetless.mas(model, [torch.zeros(3, 8, 8)] * 2, progress=False)
