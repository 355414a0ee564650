"""Weights and inputs that torch treats in a way of its own: measured, or refused in one sentence by name."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import forgetless
from exactness import unchanged, worst
from forgetless import ForgetlessError
from forgetless.measure import reference
from refused import REFUSED_MODELS, from_inference_mode

X = torch.randn(6, 4)


class By(nn.Module):
    """`function(module, x)` beside a linear layer."""

    def __init__(self, function: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self.lin, self.function = nn.Linear(4, 3), function

    def forward(self, x: Any) -> Any:
        return self.function(self, x)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("what", REFUSED_MODELS)
def test_refused_by_name(what: str) -> None:
    build, sentence = REFUSED_MODELS[what]
    model = build()
    for run in (lambda: forgetless.mas(model, X, progress=False), lambda: forgetless.Measurement(model)):
        with pytest.raises(ForgetlessError, match=sentence) as caught:
            run()
        assert "\n" not in str(caught.value)
        assert str(caught.value).endswith(".")


def test_a_copy_of_what_was_made_in_inference_mode_is_measured() -> None:
    model = copy.deepcopy(from_inference_mode())
    assert worst(forgetless.mas(model, X, progress=False), reference.mas(model, X)) < 1e-5


@pytest.mark.parametrize("excluded", [5, [None], [nn.Linear(1, 1)], ["lin", 3]])
@pytest.mark.usefixtures("unchecked")
def test_exclude_takes_strings(excluded: Any) -> None:
    with pytest.raises(ForgetlessError, match="exclude takes names or patterns of parameters as strings, not"):
        forgetless.mas(nn.Linear(4, 3), X, exclude=excluded, progress=False)


@pytest.mark.parametrize("size", [2.5, "3", 0, -1, True])
@pytest.mark.usefixtures("unchecked")
def test_a_batch_size_is_a_whole_number(size: Any) -> None:
    with pytest.raises(ForgetlessError, match="batch_size must be a whole number of 1 or more, not"):
        forgetless.mas(nn.Linear(4, 3), X, batch_size=size, progress=False)


@pytest.mark.parametrize("name", ["a [0] (x)", "with blank", "[a]", "*", "ä?"])
def test_names_are_taken_as_they_are(name: str) -> None:
    model = nn.Sequential()
    model.add_module(name, nn.Linear(4, 3))
    found = forgetless.mas(model, X, exclude=f"{name}.bias", progress=False)
    assert list(found.sums) == [f"{name}.weight"]


@pytest.mark.parametrize("batch_size", [None, 1])
def test_parameters_without_elements_are_left_out(batch_size: int | None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        empty = nn.Linear(4, 0)
    model = nn.ModuleList([nn.Linear(4, 3), empty])
    model.forward = lambda x: torch.cat([model[0](x), model[1](x)], 1).tanh()  # type: ignore[method-assign]
    found = forgetless.mas(model, X, batch_size=batch_size, progress=False)
    assert list(found.sums) == ["0.weight", "0.bias"]
    assert worst(found, reference.mas(model, X)) < 1e-5


@pytest.mark.parametrize("batch_size", [None, 1])
@pytest.mark.parametrize("estimator", ["mas", "fisher"])
def test_complex_weights_have_the_modulus_of_their_gradient(estimator: str, batch_size: int | None) -> None:
    class Fourier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.out = nn.Parameter(torch.randn(2, 3, 5, dtype=torch.cdouble) / 3), nn.Linear(24, 2)

        def forward(self, x: Tensor) -> Tensor:
            turned = torch.einsum("bim,iom->bom", torch.fft.rfft(x)[..., :5], self.weight)
            return self.out(torch.fft.irfft(turned, n=8).flatten(1))

    torch.manual_seed(0)
    model, x = Fourier().double(), torch.randn(5, 2, 8).double()
    kind = {"labels": "expected"} if estimator == "fisher" else {}
    with unchanged(model), pytest.warns(UserWarning, match="no rule for complex") if not batch_size else _calm():
        found = getattr(forgetless, estimator)(model, x, batch_size=batch_size, progress=False, **kind)
    assert not any(total.is_complex() for total in found.sums.values())
    total = torch.zeros(2, 3, 5, dtype=torch.float64)
    for row in x:
        out = model(row[None])[0]
        if estimator == "mas":
            total += torch.autograd.grad(out.square().sum(), model.weight)[0].abs()
            continue
        for log_p in out.log_softmax(0):
            g = torch.autograd.grad(log_p, model.weight, retain_graph=True)[0]
            total += log_p.detach().exp() * g.abs().square()
    assert torch.allclose(found.sums["weight"], total, rtol=1e-10)


class _calm:
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def _jacobian(m: Any, x: Tensor) -> Tensor:
    return torch.vmap(torch.func.jacrev(lambda row: m.lin(row).tanh()))(x)  # type: ignore[no-any-return]


def _force(m: Any, x: Tensor) -> Tensor:
    x = x.detach().requires_grad_(True)
    return torch.autograd.grad(m.lin(x).tanh().sum(), x, create_graph=True)[0]


INSIDE: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "vmap": lambda m, x: torch.vmap(lambda row: m.lin(row).tanh())(x),
    "jacrev": _jacobian,
    "a gradient": _force,
    "a complex output": lambda m, x: torch.fft.fft(m.lin(x).tanh()),
}


@pytest.mark.filterwarnings("ignore:.*measured one sample at a time")
@pytest.mark.parametrize("batch_size", [None, 1])
@pytest.mark.parametrize("what", INSIDE)
def test_transforms_inside_are_measured(what: str, batch_size: int | None) -> None:
    torch.manual_seed(0)
    model, x = By(INSIDE[what]).double(), torch.randn(5, 4).double()
    with unchanged(model):
        found = forgetless.mas(model, x, batch_size=batch_size, progress=False)
    assert worst(found, reference.mas(model, x)) < 1e-10


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", [torch.jit.script, lambda net: torch.jit.trace(net, X)], ids=["script", "trace"])
def test_script_modules_are_measured(make: Callable[[nn.Module], nn.Module]) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    assert worst(forgetless.mas(make(plain), X, progress=False), reference.mas(plain, X)) < 1e-5


@pytest.mark.parametrize("batch_size", [None, 1])
def test_inference_mode_in_inputs_buffers_and_around(batch_size: int | None) -> None:
    torch.manual_seed(0)
    model = By(lambda m, x: m.lin(x) * m.scale * m.plain)
    with torch.inference_mode():
        x = torch.randn(5, 4)
        model.register_buffer("scale", torch.ones(3) * 2)
        model.plain = torch.ones(3)
    buffer, attribute = model.scale, model.plain
    with torch.inference_mode():
        measurement = forgetless.Measurement(model, batch_size=batch_size)
        measurement.add(x)
        found = measurement.importance()
        also = forgetless.mas(model, list(x.split(2)), progress=False)
    assert model.scale is buffer
    assert model.plain is attribute
    assert not any(total.is_inference() for total in found.sums.values())
    model.scale, model.plain = model.scale.clone(), model.plain.clone()
    for each in (found, also):
        assert worst(each, reference.mas(model, x.clone())) < 1e-5


def test_what_nothing_foresaw_is_one_sentence_with_its_cause() -> None:
    def fail(m: Any, x: Tensor) -> Tensor:
        raise KeyError("no\nsuch key")

    with pytest.raises(ForgetlessError, match=r"By does not take the first batch .*KeyError") as caught:
        forgetless.mas(By(fail), X, progress=False)
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(ForgetlessError, match=r"Linear cannot be measured on this batch \(tensors of shape \(3, 5\)\)"):
        forgetless.mas(nn.Linear(4, 3), [X, torch.randn(3, 5)], progress=False)


class _Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize("error", [_Unspeakable(), KeyboardInterrupt(), torch.OutOfMemoryError("full")])
def test_which_errors_pass(error: BaseException) -> None:
    def fail(m: Any, x: Tensor) -> Tensor:
        raise error

    with pytest.raises(ForgetlessError if isinstance(error, _Unspeakable) else type(error)):
        forgetless.mas(By(fail), X, progress=False)


def test_an_error_of_the_data_is_the_users() -> None:
    def data() -> Any:
        yield X
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        forgetless.mas(nn.Linear(4, 3), data(), progress=False)
