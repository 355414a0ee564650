import contextlib
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from forgetless.errors import ForgetlessError
from forgetless.measure.kernels.parts import native

pytestmark = pytest.mark.skipif(not native.available(), reason="forgetless was installed without a C compiler")

TOLERANCE = 5e-6  # of the largest element


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def naive_outer(d: Tensor, a: Tensor, power: int) -> Tensor:
    return torch.einsum("nto,nti->noi", d.double(), a.double()).abs().pow(power).sum(0)


def naive_convolution(x: Tensor, d: Tensor, kernel, stride, padding, dilation, groups, power) -> Tensor:
    """One sample at a time by torch's own backward pass, in float64."""
    weight = torch.zeros(d.shape[1], x.shape[1] // groups, *kernel, dtype=torch.float64)
    total = torch.zeros_like(weight)
    for one_x, one_d in zip(x.double().split(1), d.double().split(1), strict=True):
        gradient = torch.ops.aten.convolution_backward(
            one_d,
            one_x,
            weight,
            None,
            stride,
            padding,
            dilation,
            False,
            [0] * len(kernel),
            groups,
            [False, True, False],
        )[1]
        total += gradient.abs().pow(power)
    return total


def assert_close(found: Tensor, expected: Tensor):
    error = (found.double() - expected).abs().max() if found.numel() else torch.tensor(0.0)
    assert error <= TOLERANCE * max(1e-30, float(expected.abs().max() if expected.numel() else 0))


@contextlib.contextmanager
def torch_threads(count: int):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def outer(d: Tensor, a: Tensor, power: int) -> Tensor:
    out = torch.zeros(d.shape[2], a.shape[2])
    native.outer(d, a, out, power)
    return out


def channels_last(x: Tensor) -> Tensor:
    return x.movedim(1, -1).contiguous().movedim(-1, 1)


class TestOuter:
    @settings(max_examples=60, deadline=None)
    @given(
        samples=st.integers(0, 9),
        positions=st.integers(0, 40),
        outputs=st.integers(0, 70),
        inputs=st.integers(0, 70),
        power=st.sampled_from([1, 2]),
        threads=st.sampled_from([1, 2]),
    )
    def test_every_shape(self, samples, positions, outputs, inputs, power, threads):
        d, a = torch.randn(samples, positions, outputs), torch.randn(samples, positions, inputs)
        with torch_threads(threads):
            assert_close(outer(d, a, power), naive_outer(d, a, power))

    @pytest.mark.parametrize("power", [1, 2])
    @pytest.mark.parametrize(
        ("samples", "positions", "outputs", "inputs"),
        [
            (3, 1, 97, 35),  # one position
            (600, 1, 7, 5),  # more samples than go together, with a remainder
            (101, 3, 13, 18),
            (2, 255, 12, 32),
            (3, 384, 6, 16),  # the longest sample in one piece
            (3, 385, 6, 17),  # the shortest in two
            (2, 2000, 25, 49),
            (2, 5, 800, 1600),  # several blocks both ways
        ],
    )
    def test_the_edges_of_every_cut(self, samples, positions, outputs, inputs, power):
        d, a = torch.randn(samples, positions, outputs), torch.randn(samples, positions, inputs)
        assert_close(outer(d, a, power), naive_outer(d, a, power))

    def test_adds_to_what_is_there(self):
        d, a = torch.randn(4, 6, 9), torch.randn(4, 6, 20)
        out = torch.full((9, 20), 100.0)
        native.outer(d, a, out)
        assert_close(out, naive_outer(d, a, 1) + 100)

    @pytest.mark.parametrize(
        "view",
        [
            lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
            lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
            lambda x: torch.cat([x, x], dim=2)[:, :, 3 : 3 + x.shape[2]],
            lambda x: x[:, ::2],
            lambda x: x[:1].expand(5, -1, -1),
            lambda x: x[:, :, :1].expand(-1, -1, 30),
            lambda x: x[1:, 1:],
        ],
    )
    def test_any_strides(self, view):
        d, a = view(torch.randn(5, 12, 23)), view(torch.randn(5, 12, 37))
        assert_close(outer(d, a, 1), naive_outer(d, a, 1))

    @pytest.mark.parametrize(("samples", "positions"), [(70, 11), (2, 1000)])
    def test_bits_do_not_depend_on_the_threads(self, samples, positions):
        d, a = torch.randn(samples, positions, 77), torch.randn(samples, positions, 133)
        found = []
        for threads in (1, 2, 5):
            with torch_threads(threads):
                found.append(outer(d, a, 1))
        assert torch.equal(found[0], found[1])
        assert torch.equal(found[0], found[2])

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_a_bad_number_stays_in_its_row(self, value):
        d, a = torch.randn(3, 4, 7), torch.randn(3, 4, 17)
        expected = outer(d, a, 1)
        d[1, 2, 5] = value
        found = outer(d, a, 1)
        assert not torch.isfinite(found[5]).any()
        rest = [o for o in range(7) if o != 5]
        assert torch.equal(found[rest], expected[rest])


class TestConvolution:
    @pytest.mark.parametrize("power", [1, 2])
    @pytest.mark.parametrize(
        ("samples", "channels", "outputs", "size", "kernel", "stride", "padding", "dilation", "groups"),
        [
            (3, 16, 8, (7, 7), (3, 3), (1, 1), (1, 1), (1, 1), 1),
            (2, 3, 64, (33, 30), (7, 7), (2, 2), (3, 3), (1, 1), 1),  # a first layer, size not divisible
            (2, 8, 12, (9, 11), (3, 2), (2, 1), (0, 1), (2, 3), 4),  # everything different
            (2, 6, 6, (20,), (5,), (3,), (2,), (1,), 6),  # depthwise, one dimension
            (2, 4, 6, (5, 6, 7), (3, 1, 2), (1, 2, 1), (1, 0, 1), (1, 1, 2), 2),  # three dimensions
            (5, 32, 48, (10, 10), (1, 1), (2, 2), (0, 0), (1, 1), 1),
            (4, 5, 7, (3, 3), (3, 3), (1, 1), (0, 0), (1, 1), 1),  # one position
            (2, 2, 3, (25, 25), (2, 2), (1, 1), (0, 0), (1, 1), 1),  # 576 positions
            (0, 2, 3, (5, 5), (2, 2), (1, 1), (0, 0), (1, 1), 1),
            (2, 1, 3, (6, 6), (3, 3), (1, 1), (1, 1), (1, 1), 1),
        ],
    )
    def test_every_geometry_and_layout(
        self, samples, channels, outputs, size, kernel, stride, padding, dilation, groups, power
    ):
        geometry = (stride, padding, dilation)
        positions = [
            (n + 2 * p - step * (k - 1) - 1) // s + 1
            for n, k, s, p, step in zip(size, kernel, stride, padding, dilation, strict=True)
        ]
        x, d = torch.randn(samples, channels, *size), torch.randn(samples, outputs, *positions)
        expected = naive_convolution(x, d, kernel, *geometry, groups, power)
        same = (torch.Tensor.contiguous, channels_last)
        for lay_x, lay_d, lay_out in itertools.product(same, same, same):
            out = lay_out(torch.ones(outputs, channels // groups, *kernel))
            native.convolution(lay_x(x), lay_d(d), out, *geometry, groups, power)
            assert_close(out - 1, expected)

    def test_a_few_samples_at_a_time(self, monkeypatch):
        x, d = torch.randn(7, 4, 6, 6), torch.randn(7, 5, 6, 6)
        geometry = ((1, 1), (1, 1), (1, 1))
        monkeypatch.setattr(native, "_COPIED", 2 * (x[0].numel() + d[0].numel()))
        out = torch.zeros(5, 4, 3, 3)
        native.convolution(x, d, out, *geometry)
        assert_close(out, naive_convolution(x, d, (3, 3), *geometry, 1, 1))

    def test_sliced_and_expanded_operands(self):
        x, d = torch.randn(3, 9, 8, 10)[:, 1:7, :, 2:8], torch.randn(3, 4, 1, 1).expand(-1, -1, 6, 4)
        out = torch.zeros(4, 6, 3, 3)
        native.convolution(x, d, out, (1, 1), (0, 0), (1, 1))
        assert_close(out, naive_convolution(x, d, (3, 3), (1, 1), (0, 0), (1, 1), 1, 1))

    @pytest.mark.parametrize("groups", [1, 2])
    def test_exchanged_operands_serve_the_transposed_convolution(self, groups):
        x, weight = torch.randn(3, 4, 5, 6), torch.randn(4, 3, 3, 2, requires_grad=True)
        y = torch.nn.functional.conv_transpose2d(x, weight, None, (2, 3), (1, 0), (1, 2), groups, (2, 1))
        d = torch.randn_like(y)
        one_by_one = [
            torch.autograd.grad((y[n] * d[n]).sum(), weight, retain_graph=True)[0].double().abs() for n in range(3)
        ]
        out = torch.zeros_like(weight)
        native.convolution(d, x, out, (2, 3), (1, 0), (2, 1), groups)
        assert_close(out, torch.stack(one_by_one).sum(0))


class TestBadInput:
    def refused(self, function, *arguments) -> str:
        out = arguments[2]
        before = out.clone()
        with pytest.raises(ForgetlessError) as caught:
            function(*arguments)
        assert torch.equal(out, before)
        return str(caught.value)

    def test_shapes(self):
        d, a, out = torch.randn(2, 3, 4), torch.randn(2, 3, 5), torch.zeros(4, 6)
        assert self.refused(native.outer, d, a, out) == (
            "outer needs d [N, T, O], a [N, T, I] and out [O, I], not [2, 3, 4], [2, 3, 5], [4, 6]."
        )
        self.refused(native.outer, d, torch.randn(2, 4, 5), torch.zeros(4, 5))
        self.refused(native.outer, d[0], a[0], torch.zeros(4, 5))

    def test_layouts_of_out(self):
        d, a = torch.randn(2, 3, 4), torch.randn(2, 3, 5)
        assert self.refused(native.outer, d, a, torch.zeros(5, 4).T) == "outer needs a contiguous out."
        x, d, out = torch.randn(1, 2, 5, 5), torch.randn(1, 3, 4, 4), torch.zeros(3, 2, 2, 4)[..., ::2]
        assert self.refused(native.convolution, x, d, out, (1, 1), (0, 0), (1, 1)) == (
            "convolution needs a contiguous or channels_last out."
        )

    @pytest.mark.parametrize(
        ("name", "bad"),
        [
            ("d", torch.zeros(2, 3, 4).double()),
            ("d", torch.zeros(2, 3, 4, device="meta")),
            ("a", torch.zeros(2, 3, 5).half()),
        ],
    )
    def test_kinds(self, name, bad):
        good = {"d": torch.zeros(2, 3, 4), "a": torch.zeros(2, 3, 5)} | {name: bad}
        assert self.refused(native.outer, good["d"], good["a"], torch.zeros(4, 5)) == (
            f"the compiled kernel needs {name} to be a strided float32 tensor on the CPU, "
            f"not torch.strided {bad.dtype} on {bad.device}."
        )

    def test_powers(self):
        d, a = torch.randn(2, 3, 4), torch.randn(2, 3, 5)
        assert self.refused(native.outer, d, a, torch.zeros(4, 5), 3) == "power must be 1 or 2, not 3."

    def test_shared_memory(self):
        both = torch.zeros(64)
        d, out = both[:24].view(2, 3, 4), both[40:60].view(4, 5)
        assert self.refused(native.outer, d, torch.zeros(2, 3, 5), out) == "out must not share its memory with d."

    @pytest.mark.parametrize(
        ("stride", "padding", "dilation", "groups"),
        [
            ((1, 1), (1, 1), (1, 1), 1),  # too many positions for d
            ((2, 1), (0, 0), (1, 1), 1),
            ((1, 1), (0, 0), (2, 1), 1),
            ((0, 1), (0, 0), (1, 1), 1),
            ((1, 1), (-1, 0), (1, 1), 1),
            ((1, 1), (0, 0), (1, 0), 1),
            ((1,), (0,), (1,), 1),
            ((1, 1), (0, 0), (1, 1), 0),
            ((1, 1), (0, 0), (1, 1), 3),
        ],
    )
    def test_geometries(self, stride, padding, dilation, groups):
        x, d, out = torch.randn(2, 2, 5, 5), torch.randn(2, 3, 4, 4), torch.zeros(3, 2, 2, 2)
        assert self.refused(native.convolution, x, d, out, stride, padding, dilation, groups) == (
            "convolution needs x [N, C, *size], d [N, O, *positions] and out [O, C / groups, *kernel] that fit stride "
            f"{stride}, padding {padding}, dilation {dilation} and {groups} groups, "
            "not [2, 2, 5, 5], [2, 3, 4, 4], [3, 2, 2, 2]."
        )

    def test_no_kernel(self, monkeypatch):
        monkeypatch.setattr(native, "_modulus", None)
        assert not native.available()
        assert self.refused(native.outer, torch.zeros(1, 1, 1), torch.zeros(1, 1, 1), torch.zeros(1, 1)) == (
            "the compiled kernel is not there: forgetless was installed without a C compiler."
        )
