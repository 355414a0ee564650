"""One ordinary backward pass that leaves `Σ_n |g_n|` of every parameter instead of `Σ_n g_n`.

While a `Tape` is active, every torch operation that consumes a tracked parameter is looked up in the kernels. Where a
rule holds, the operation runs as it is, but its backward hands the parameter's *term* (its per-sample gradients in
compact form) over and computes only the gradient of the activations. Every use of a parameter hangs on the parameter's
*slot*, a node of the autograd graph: autograd itself runs it after the last of them, so tied and reused parameters sum
over their uses inside a sample, and a term is freed as soon as it was used.

What is computed from parameters alone (`derived`) runs as it is, until it meets the samples. Operations that no rule
serves are never passed silently: their parameters are reported in `Tape.unruled`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from forgetless.measure.engine import provenance
from forgetless.measure.engine.bodies import body_of
from forgetless.measure.engine.derived import REARRANGING, SHAPED_LIKE, Derived, root_term
from forgetless.measure.engine.distance import sketch
from forgetless.measure.engine.nodes import Slot, Spread, Use
from forgetless.measure.kernels import (
    ELEMENTWISE,
    JOINING,
    REWRITES,
    RULES,
    Call,
    Samples,
    Term,
    mark_of_samples,
    of_samples,
    spread,
    spread_term,
)
from forgetless.model import batches

Deposit = Callable[[str, Tensor], None]


class Tape(TorchFunctionMode):
    """Makes the backward pass of what runs inside deposit `Σ_n |g_n|^power` of every tracked parameter.

    Args:
        parameters: the tracked parameters by name.
        batch: the batch that goes through; what is computed from its tensors depends on the samples.
        power: 1 for the modulus (MAS), 2 for the square (Fisher).
        deposit: called as `deposit(name, Σ_n |g_n|^power)` once per parameter during the backward pass.
        into: name → what this pass adds to, in place; such a tensor is then what is deposited.
        watched: a sample whose gradients are kept as sketches.

    Attributes:
        unruled: name → why no rule serves it. Such a parameter's deposits mean nothing.
        sketches: name → `sketch` of the watched sample's gradient.
        sketching: seconds that making them took.
        met: the names of the parameters that met the samples, operation by operation.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        batch: Any,
        power: int,
        deposit: Deposit,
        into: Mapping[str, Tensor] | None = None,
        watched: int | None = None,
    ) -> None:
        super().__init__()
        self.sketches: dict[str, Tensor] = {}
        self.sketching = 0.0
        self._watched = watched
        self.unruled: dict[str, str] = {}
        self.met: list[tuple[str, ...]] = []
        self._count = batches.size(batch)
        self._into = {} if into is None else into
        self._power = power
        self._ended = False  # the forward pass
        self._deposit = deposit
        self._derived = {id(p): Derived(p, {name: p}, rearranged=True) for name, p in parameters.items()}
        self._slots: dict[str, Tensor] = {}
        self._used: dict[str, list[Derived]] = {}
        for tensor in batches.tensors(batch):
            if batches.rowed(tensor, self._count):  # others are the same for every sample
                mark_of_samples(tensor)
                provenance.begin(tensor, self._count)

    def order(self) -> list[str]:
        """The names of the parameters that were used, in the order of their first use."""
        return list(self._slots)

    def end(self, values: Tensor) -> None:
        """The forward pass is over, and gave these scalars: their rows must be known to come in the batch's order.

        A row that is a sample's by every rule so far may hold constants (padding, an empty slot) that another sample
        uses in the end. Where the rules lead to the scalars, none does. Where they do not, nothing is sure of what met
        parameters on the way.
        """
        self._ended = True
        rows = provenance.rows_of(values)
        if self._count == 1 or (rows is not None and rows.axis == 0 and rows.of is None and rows.lost is None):
            return
        after = "an operation that cannot be followed" if rows is None or rows.lost is None else rows.lost
        for name in self._slots:
            self.unruled.setdefault(name, f"which rows belong to which sample is not known after {after}")

    def escaped(self, values: Tensor) -> dict[str, str]:
        """Tracked parameters that `values` depend on other than through their slots: a use that no rule has seen.

        Walks the autograd graph, so that writing in place, `out=` and what else returns no tensor are found as well.
        """
        names = {id(root): name for use in self._derived.values() for name, root in use.roots.items()}
        found: dict[str, str] = {}
        seen: set[Any] = set()
        open_ends = [values.grad_fn]
        while open_ends:
            node = open_ends.pop()
            if node is None or node in seen or type(node).__name__ == "SlotBackward":
                continue
            seen.add(node)
            variable = getattr(node, "variable", None)
            if variable is not None and id(variable) in names:
                found[names[id(variable)]] = "it is used by an operation that cannot be followed"
            open_ends.extend(each for each, _ in node.next_functions)
        return found

    def close(self) -> None:
        """Let go of the graph: it holds the tape, which holds it, so that neither would ever be freed."""
        for held in (self._slots, self._derived, self._used):
            held.clear()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run `func`; what it computes from samples is marked so, what from parameters alone is followed."""
        kwargs = kwargs or {}
        if func in _DIFFERENTIATING and not self._ended:
            for name in self._slots:
                self.unruled.setdefault(name, "gradients are taken inside of the forward pass")
        body = body_of(func) if func in _BACKWARD else None
        if body is not None:
            with self:
                return body(*args, **kwargs)
        tensors = list(batches.tensors((args, kwargs)))
        found = [self._derived[id(tensor)] for tensor in tensors if id(tensor) in self._derived]
        for tensor in tensors:  # the mark is lost on a copy, such as the input of a checkpointed block
            if tensor.requires_grad and id(tensor) not in self._derived:
                mark_of_samples(tensor)
                if provenance.rows_of(tensor) is None:
                    provenance.note(tensor, provenance.lost("a copy"))
        sampled = any(of_samples(tensor) for tensor in tensors)
        if found and self._writes_to_derived(func, args, kwargs):
            return self._given_up(func, found, args, kwargs, tensors if sampled else [])
        made = [item for item in found if not any(item.value is root for root in item.roots.values())]
        versions = [(item, item.value._version) for item in made]
        try:
            return self._run(func, found, args, kwargs, tensors, sampled)
        finally:
            for item, version in versions:
                if item.value._version != version:  # F.relu(…, inplace=True)
                    self._give_up(item, f"{provenance.name_of(func)} writes to what is made of parameters")

    def _run(
        self,
        func: Callable[..., Any],
        found: list[Derived],
        args: Any,
        kwargs: Mapping[str, Any],
        tensors: list[Tensor],
        sampled: bool,
    ) -> Any:
        if found and (not sampled or (func in SHAPED_LIKE and id(args[0]) in self._derived)):
            return self._derive(func, found, args, kwargs)
        inner = body_of(func) if sampled and not found else None
        if inner is not None:  # what it is made of can be followed
            with self:
                return inner(*args, **kwargs)
        result = self._meet(func, found, args, kwargs) if found else func(*args, **kwargs)
        if sampled:
            self._mark(func, args, kwargs, result, {id(tensor) for tensor in tensors})
        return result

    def _writes_to_derived(self, func: Callable[..., Any], args: Any, kwargs: Mapping[str, Any]) -> bool:
        """Whether it writes to what is made of parameters, whose earlier uses would then be another tensor's."""
        target = kwargs.get("out")
        if target is None and args and provenance.writes(provenance.name_of(func)):
            target = args[0]
        return any(id(tensor) in self._derived for tensor in batches.tensors(target))

    def _given_up(
        self, func: Callable[..., Any], found: list[Derived], args: Any, kwargs: Mapping[str, Any], of: list[Tensor]
    ) -> Any:
        """Run it; its parameters are measured one sample at a time. `of` are its inputs if some are of samples."""
        why = f"{provenance.name_of(func)} writes to what is made of parameters"
        for item in found:
            self._give_up(item, why)
        result = func(*args, **kwargs)
        if of:
            self._mark(func, args, kwargs, result, {id(tensor) for tensor in of})
        return result

    def _give_up(self, item: Derived, why: str) -> None:
        for name in item.roots:
            self.unruled.setdefault(name, why)

    def _mark(
        self, func: Callable[..., Any], args: Any, kwargs: Mapping[str, Any], result: Any, given: set[int]
    ) -> None:
        """Say that results were computed from the batch, and which of their rows are whose; `given` are its inputs."""
        results = [args[0]] if func is Tensor.__setitem__ else list(batches.tensors(result))
        # What an operation inside this one has said already is not said again, but of what was written in place.
        fresh = [each for each in results if provenance.rows_of(each) is None or id(each) in given]
        if not fresh:
            return
        provenance.follow(func, args, kwargs, result, self._count)
        for tensor in fresh:
            if provenance.rows_of(tensor) is not provenance.BLANK:
                mark_of_samples(tensor)

    def _derive(self, func: Callable[..., Any], found: list[Derived], args: Any, kwargs: Any) -> Any:
        """An operation on parameters alone."""
        result = func(*args, **kwargs)
        rearranged = func in REARRANGING and all(item.rearranged for item in found)
        if provenance.name_of(func) == "embedding":  # scale_grad_by_freq=True divides gradients
            rearranged = rearranged and not any(each is True for each in (*args, *kwargs.values()))
        roots = {name: root for item in found for name, root in item.roots.items()}
        for tensor in batches.tensors([args[0]] if func is Tensor.__setitem__ else result):
            if tensor.requires_grad and id(tensor) not in self._derived:
                self._derived[id(tensor)] = Derived(tensor, roots, rearranged)
        return result

    def _meet(self, func: Callable[..., Any], found: list[Derived], args: Any, kwargs: Any) -> Any:
        """An operation in which parameters meet the samples: by its rule, rewritten, spread, or reported."""
        rewrite = REWRITES.get(func) or body_of(func)
        if rewrite is not None:
            with self:
                result = rewrite(*args, **kwargs)
            if result is not NotImplemented:
                return result
        names = tuple(dict.fromkeys(name for item in found for name in item.roots))
        if func is Tensor.__setitem__ and self._write(args, names):
            return None
        met = max((t for t in batches.tensors((args, kwargs)) if of_samples(t)), key=lambda tensor: tensor.dim())
        if func in RULES:
            met = next(tensor for tensor in batches.tensors((args, kwargs)) if of_samples(tensor))
        samples, ended = self._samples(names, met)
        if samples is not None and func in RULES:
            call = RULES[func](samples, *args, **kwargs)
            if call is None and samples.inner:  # a rule for rows that are together, sample by sample
                samples = replace(samples, inner=False, of=samples.order(met.shape[samples.axis]))
                call = RULES[func](samples, *args, **kwargs)
            self.met.append(names)
            if call is not None and of_samples(call.input) and not any(map(of_samples, call.parameters)):
                return self._use(call if samples.of is None else _padded(call, samples))
        if samples is not None and (func in ELEMENTWISE or func in JOINING):
            spread_out = self._spread(func, samples, names, (args, kwargs), met)
            if spread_out is not None:
                args, kwargs = spread_out
                return func(*args, **kwargs)
        result = func(*args, **kwargs)
        if any(tensor.requires_grad for tensor in batches.tensors((result, args))):
            served = func in RULES or func in ELEMENTWISE or func in JOINING
            why = ended if ended and served else f"no rule for {provenance.name_of(func)}"
            for name in names:
                self.unruled.setdefault(name, why)
        return result

    def _samples(self, names: tuple[str, ...], met: Tensor) -> tuple[Samples | None, str]:
        """Where the samples are in `met`, which meets these parameters; None and the reason where that is not known."""
        rows = provenance.rows_of(met)
        if rows is None or rows.lost is not None:
            lost = "an operation that cannot be followed" if rows is None else rows.lost
            return None, f"which rows belong to which sample is not known after {lost}"
        if self._count == 1:
            return Samples(1), ""
        if rows.of is None and rows.axis is not None:
            return Samples(self._count, rows.axis), ""
        if rows.axis is None and rows.of is not None and met.dim():  # one sample's alone
            rows = provenance.Rows(0, rows.of.expand(met.shape[0]))
        if rows.axis is None or rows.of is None or bool((rows.of < 0).any()):
            return None, "some of its rows belong to no sample"
        if len(rows.of) and torch.equal(rows.of, torch.arange(self._count).repeat(len(rows.of) // self._count)):
            return Samples(self._count, rows.axis, inner=True), ""
        return Samples(self._count, rows.axis, of=rows.of), ""

    def _write(self, args: tuple[Any, ...], names: tuple[str, ...]) -> bool:
        """`target[index] = parameter`: the parameter is spread to the rows that are written. Whether that can be."""
        target, index, value = args
        use = self._derived.get(id(value))
        if use is None or not of_samples(target):
            return False
        place = target.detach()
        provenance.note(place, provenance.rows_of(target) or provenance.BLANK)
        chosen = place[index]
        provenance.follow(Tensor.__getitem__, (place, index), {}, chosen, self._count)
        samples, _ = self._samples(names, chosen)
        rows = provenance.rows_of(chosen)
        if samples is None or rows is None or not chosen.dim() or rows is provenance.BLANK:
            return False
        if rows.of is None and rows.axis is not None:
            samples = Samples(self._count, rows.axis)
        wide = spread(value.detach(), chosen.dim(), chosen.shape[samples.axis], samples)
        if wide is None:
            return False
        copies = Spread.apply(wide, self._settler(use, samples), *self._hang([use]))
        mark_of_samples(copies)
        provenance.note(copies, rows)
        target[index] = copies
        return True

    def _settler(self, use: Derived, samples: Samples) -> Callable[[Tensor], None]:
        """What makes the gradient of a parameter's spread copies into its term."""
        return lambda gradient: use.terms.append(spread_term(gradient, use.value, samples))

    def _use(self, call: Call) -> Tensor:
        uses = [self._derived.get(id(parameter)) for parameter in call.parameters]
        ledgers = [None if use is None else use.terms for use in uses]
        values = [None if parameter is None else parameter.detach() for parameter in call.parameters]
        slots = self._hang([use for use in uses if use is not None])
        return Use.apply(call, ledgers, values, call.input, *slots)  # type: ignore[no-any-return]

    def _spread(
        self, func: Callable[..., Any], samples: Samples, names: tuple[str, ...], given: Any, largest: Tensor
    ) -> Any:
        """The arguments with every derived tensor spread to one virtual copy per row; None if one cannot be."""
        ranks = [tensor.dim() for tensor in batches.tensors(given)]
        self.met.append(names)
        if largest.dim() <= samples.axis or largest.dim() < max(ranks):
            return None
        if func in JOINING and _joined_axis(*given) % largest.dim() == samples.axis:
            return None  # its rows come after the samples', and are not theirs
        rows = largest.shape[samples.axis]
        spreads: dict[int, Tensor] = {}
        for tensor in batches.tensors(given):
            use = self._derived.get(id(tensor))
            if use is None or id(tensor) in spreads:
                continue
            wide = spread(tensor.detach(), largest.dim(), rows, samples)
            if wide is None or (func in JOINING and wide.shape != tensor.shape):
                return None
            own = samples.axis - (largest.dim() - tensor.dim())
            if not use.rearranged and own >= 0 and tensor.shape[own] > 1 and self._count > 1:
                return None  # computed for all rows at once: to pull every sample back through that costs N times N
            spreads[id(tensor)] = Spread.apply(wide, self._settler(use, samples), *self._hang([use]))
        return batches.mapped(given, lambda tensor: spreads.get(id(tensor), tensor))

    def _hang(self, uses: Sequence[Derived]) -> list[Tensor]:
        """The slots that these uses hang on."""
        slots: dict[str, Tensor] = {}
        for use in uses:
            for name, root in use.roots.items():
                uses_so_far = self._used.setdefault(name, [])
                if name not in self._slots or not self._slots[name].requires_grad:
                    self._slots[name] = Slot.apply(root, lambda name=name, root=root: self._settle(name, root))
                if use not in uses_so_far:
                    uses_so_far.append(use)
                slots[name] = self._slots[name]
        return list(slots.values())

    def _settle(self, name: str, root: Tensor) -> None:
        """All uses of a parameter have handed over their terms."""
        term = root_term(root, self._used[name])
        if term is not None and self._watched is not None:
            start = time.perf_counter()
            self.sketches[name] = sketch(term.sample(self._watched))
            self.sketching += time.perf_counter() - start
        if term is not None:
            self._deposit(name, term.modulus_sum(self._power, self._into.get(name)))
        for use in self._used.pop(name):
            if self._used.keys().isdisjoint(use.roots):
                use.terms.clear()


def _joined_axis(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    found = args[1] if len(args) > 1 else kwargs.get("dim", kwargs.get("axis", 0))
    return int(found)


def _padded(call: Call, samples: Samples) -> Call:
    """The call, its terms given as many rows for every sample."""

    def padding(term: Callable[[Tensor, Tensor], Term]) -> Callable[[Tensor, Tensor], Term]:
        return lambda d, x: term(samples.padded(d, 0), samples.padded(x))

    return replace(call, terms=tuple(map(padding, call.terms)))


# The mode stays on in the backward pass: a checkpointed block runs forward again inside it.
_BACKWARD = (Tensor.backward, torch.autograd.backward)
_DIFFERENTIATING = (*_BACKWARD, torch.autograd.grad)
