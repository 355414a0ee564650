"""Several processes measure one network together: DDP's replicas and FSDP2's shards, over `torch.distributed`.

Every process (a rank) has samples of its own, and `Σ_n |g_n|` over all samples is the sum of theirs. Replicas work
apart and add up in the end. Shards cannot: every forward and backward pass gathers weights from all ranks, so all must
make the same passes. Ranks go in lockstep, therefore; one whose samples have run out runs a batch that was broadcast,
at weight zero.

What ranks say to each other goes over a group of its own (gloo, on the CPU), so that it never meets FSDP's collectives.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from forgetless.errors import ForgetlessError
from forgetless.model import batches
from forgetless.model.parameters import canonical, listing, trainable, unwrapped
from forgetless.model.sharding import SHARD, fsdp_modules, is_sharded, resharded

_WIDTH = 8  # numbers in what ranks tell each other: whether one has failed, and up to seven more


class Ranks:
    """The processes that measure one model together.

    Attributes:
        rank: of this process among them.
        size: how many they are.
        sharded: whether the model's weights are spread over them (FSDP2), and not replicated (DDP).
        shards: name → the parameter as the optimizer holds it, while it is followed.
    """

    def __init__(self, model: nn.Module, group: dist.ProcessGroup | None, sharded: bool) -> None:
        self.model, self.sharded = model, sharded
        self.group = group
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        self._control = _control(group)
        self._passing = self._ended = False
        self.shards: dict[str, Any] = {}

    # -- what ranks tell each other

    def agree(self, *numbers: int, error: Exception | None = None) -> Tensor:
        """Every rank's numbers, `[ranks, numbers]`, the same on all of them.

        Raises:
            ForgetlessError: another rank has failed, with what it said; or it has ended.
        """
        told = torch.zeros(_WIDTH, dtype=torch.int64)
        told[0] = error is not None
        told[1 : 1 + len(numbers)] = torch.tensor(numbers, dtype=torch.int64)
        found = [torch.empty_like(told) for _ in range(self.size)]
        with self._connected():
            dist.all_gather(found, told, group=self._control)
        table = torch.stack(found)
        if bool(table[:, 0].any()):
            self._ended = True
            said = self._gathered(None if error is None else f"{error}".rstrip(".") or type(error).__name__)
            if error is None:
                first = next(rank for rank, text in enumerate(said) if text is not None)
                raise ForgetlessError(f"rank {first} of {self.size} could not go on: {said[first]}.")
        return table[:, 1 : 1 + len(numbers)]

    def gathered(self, value: Any) -> list[Any]:
        """Every rank's `value`, in their order."""
        self.agree()
        return self._gathered(value)

    def refuse_difference(self, value: Any, what: str) -> None:
        """Refuse a `value` that is not the same on all ranks.

        Raises:
            ForgetlessError: as said, on every rank.
        """
        told = self.gathered(value)
        others = [rank for rank, other in enumerate(told) if other != told[0]]
        if others:
            raise ForgetlessError(f"{what} is not the same on all ranks: rank {others[0]} has another than rank 0.")

    def _gathered(self, value: Any) -> list[Any]:
        found: list[Any] = [None] * self.size
        with self._connected():
            dist.all_gather_object(found, value, group=self._control)
        return found

    def broadcast(self, value: Any, source: int) -> Any:
        """The `value` of rank `source`; tensors in it arrive on the CPU."""
        holder = [batches.mapped(value, lambda tensor: tensor.detach().cpu()) if self.rank == source else None]
        with self._connected():
            dist.broadcast_object_list(holder, group=self._control, group_src=source)
        return holder[0]

    def total(self, tensor: Tensor) -> Tensor:
        """The sum of every rank's `tensor`, in place."""
        with self._connected():
            dist.all_reduce(tensor, group=self.group)
        return tensor

    def lockstep(self, batches: Iterable[Any]) -> Iterator[Any]:
        """This rank's batches, and None in their place for as long as another rank has more."""
        own = iter(batches)
        while True:
            batch = next(own, None)
            if not bool(self.agree(batch is not None).any()):
                return
            yield batch

    @contextlib.contextmanager
    def jointly(self) -> Iterator[None]:
        """An error inside, on any rank, is an error on every rank."""
        try:
            yield
        except Exception as error:
            # In the middle of a pass the others wait for weights, not for a message: they learn of it when this process
            # ends. What the house itself refuses it refuses between the collectives of a pass.
            if not self._ended and (isinstance(error, ForgetlessError) or not self._passing):
                self.agree(error=error)
            raise

    @contextlib.contextmanager
    def passing(self) -> Iterator[None]:
        """Inside, the ranks make forward and backward passes; afterwards FSDP is in the same state on all of them."""
        self._passing = self.sharded
        yield
        self._passing = False
        if self.sharded:
            self._rest()

    @contextlib.contextmanager
    def _connected(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            self._ended = True
            _CONTROL.clear()
            raise ForgetlessError(
                f"rank {self.rank} of {self.size} has lost the others: one of them has ended, or was silent for longer "
                "than the timeout of init_process_group; start them again, and the pass goes on from what was saved."
            ) from error

    # -- shards

    @contextlib.contextmanager
    def following(self, exclude: str | Iterable[str] = ()) -> Iterator[dict[str, Tensor]]:
        """Inside, the trainable parameters by name, as operations meet them: FSDP2's as gathered from all shards.

        Raises:
            ForgetlessError: a parameter that cannot be followed, by name.
        """
        modules = fsdp_modules(self.model)
        if not modules:
            yield dict(trainable(self.model, exclude))
            return
        resharded(self.model)
        shards = dict(self.model.named_parameters())
        gathered = _gathered_parameters(self.model, modules)
        again = _gathered_parameters(self.model, modules)
        named = {canonical(name): (shards[name], gathered.get(name, shards[name])) for name in shards}
        lost = [
            canonical(name)
            for name, shard in shards.items()
            if is_sharded(shard) and (is_sharded(gathered.get(name, shard)) or again[name] is not gathered[name])
        ]
        if lost:
            raise ForgetlessError(
                f"{listing(lost)} cannot be measured where it is: it is split in another way than by fully_shard "
                "(tensor parallelism, or a subclass that FSDP gathers anew each time); measure a copy of the model "
                "that is sharded by fully_shard alone."
            )
        chosen = trainable(self.model, exclude)
        self.shards = {name: named[name][0] for name in chosen}
        for shard, whole in named.values():
            if whole is not shard:
                setattr(whole, SHARD, shard)
        try:
            yield {name: named[name][1] for name in chosen}
        finally:
            self.shards = {}
            for pair in named.values():
                for tensor in pair:
                    for mark in [name for name in vars(tensor) if name.startswith(("_forgetless", "_of_samples"))]:
                        delattr(tensor, mark)  # whatever the pass noted on it
            self._rest()

    def _rest(self) -> None:
        """Let FSDP forget the pass: which ones it gathered, and what it would gather next, may differ between ranks."""
        for module in fsdp_modules(self.model):
            if hasattr(module, "reset_iter_state"):
                with contextlib.suppress(RuntimeError, AttributeError):  # only roots have it, once they have run
                    module.reset_iter_state()
        resharded(self.model)

    def spread(self, name: str, local: Tensor) -> Tensor:
        """The sum of every rank's `local`, sharded like the parameter `name`; in lockstep.

        Args:
            name: a parameter that is followed.
            local: of the whole parameter's shape.
        """
        shard = self.shards[name]
        if not is_sharded(shard):
            return self.total(local.clone())
        from torch.distributed.tensor import DTensor, Partial

        mesh = shard.device_mesh
        partial = DTensor.from_local(local, mesh, [Partial()] * mesh.ndim, run_check=False)
        return partial.redistribute(placements=shard.placements)


def ranks_of(model: nn.Module) -> Ranks | None:
    """The processes that share `model`: by DDP around it or `fully_shard` in it; None if it is this process's alone.

    Raises:
        ForgetlessError: DDP inside the model, FSDP1, or DTensors that `fully_shard` has not made.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return None
    outer = _ddp(model)
    inner = unwrapped(model)
    for name, module in inner.named_modules():
        if type(module).__name__ == "DistributedDataParallel":
            raise ForgetlessError(
                f"{name!r} inside the model is wrapped in DistributedDataParallel, whose hooks would fire at every "
                "sample; wrap the whole model instead, or measure the unwrapped one."
            )
        if type(module).__name__ == "FullyShardedDataParallel":
            raise ForgetlessError(
                f"{name or type(module).__name__!r} is sharded by FullyShardedDataParallel (FSDP1), which hides its "
                "parameters; shard with torch.distributed.fsdp.fully_shard (FSDP2) instead."
            )
    if fsdp_modules(inner):
        return Ranks(inner, _mesh_group(inner), sharded=True)
    split = [canonical(name) for name, parameter in inner.named_parameters() if is_sharded(parameter)]
    if split:
        raise ForgetlessError(
            f"{listing(split)} is a DTensor that fully_shard has not made (tensor parallelism?); its samples cannot be "
            "told apart on one rank, so measure a copy of the model that is sharded by fully_shard alone."
        )
    return None if outer is None else Ranks(inner, outer.process_group, sharded=False)


def alone() -> bool:
    """Whether this process is the only one of its job."""
    return not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1


def _gathered_parameters(model: nn.Module, modules: list[Any]) -> dict[str, Tensor]:
    """Every sharded parameter as its module's operations meet it; one module is gathered at a time."""
    shards = dict(model.named_parameters())
    found: dict[str, Tensor] = {}
    for module in modules:
        module.unshard()
        now = model.named_parameters()
        found.update({name: parameter for name, parameter in now if parameter is not shards.get(name)})
        module.reshard()
    return found


def _ddp(model: nn.Module) -> Any:
    """The DistributedDataParallel around the model, perhaps inside or outside of torch.compile."""
    while type(model).__name__ in ("OptimizedModule", "DistributedDataParallel"):
        if type(model).__name__ == "DistributedDataParallel":
            return model
        model = model._orig_mod  # type: ignore[assignment]
    return None


def _mesh_group(model: nn.Module) -> dist.ProcessGroup | None:
    """The group of all ranks of the mesh that the parameters are sharded over."""
    meshes = {parameter.device_mesh for parameter in resharded(model).parameters() if is_sharded(parameter)}  # type: ignore[attr-defined]
    ranks = sorted({int(rank) for mesh in meshes for rank in mesh.mesh.flatten()})
    if len(ranks) == dist.get_world_size():
        return None
    raise ForgetlessError(
        f"the model is sharded over {len(ranks)} of {dist.get_world_size()} processes; measure it in a job whose "
        "processes all share it."
    )


_CONTROL: dict[Any, Any] = {}  # the group that ranks talk over, made once for the group that shares the model


def _control(group: dist.ProcessGroup | None) -> Any:
    key = group or dist.group.WORLD
    if key not in _CONTROL:
        _CONTROL.clear()
        ranks = None if group is None else dist.get_process_group_ranks(group)
        _CONTROL[key] = dist.new_group(
            ranks, timeout=_timeout(key), backend="gloo", use_local_synchronization=ranks is not None
        )
    return _CONTROL[key]


def _timeout(group: Any) -> timedelta | None:
    """What `init_process_group(timeout=…)` was given; None for torch's own where it cannot be told."""
    device = "cuda" if "nccl" in dist.get_backend(group) else "cpu"
    options = getattr(group._get_backend(torch.device(device)), "options", None)
    found = getattr(options, "_timeout", None)
    return found if isinstance(found, timedelta) else None
