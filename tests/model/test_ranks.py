"""Two processes measure together what one measures alone."""

from __future__ import annotations

from pathlib import Path

import pytest

import together
from processes import Processes

EXACT = 1e-6  # of the layer's largest


CASES = [
    ("residual", "ddp", "uneven"),
    ("residual", "fsdp", "uneven"),
    ("residual", "fsdp", "empty"),
    ("residual", "ddp", "empty"),
    ("residual", "fsdp", "one batch"),
    ("residual", "fsdp", "singles"),
    ("residual", "fsdp, resharded", "even"),
    ("checkpointed", "ddp", "even"),
    ("checkpointed", "fsdp", "uneven"),
    ("convolutional", "fsdp", "uneven"),
    ("language", "ddp", "singles"),
    ("language", "fsdp", "uneven"),
    ("centers", "ddp", "uneven"),
    ("centers", "fsdp", "empty"),
]


@pytest.mark.parametrize(("network", "how", "share"), CASES)
def test_mas_equals_one_process(two: Processes, network: str, how: str, share: str) -> None:
    for found in two.run(together.compare, network, how, share):
        error = found.pop("error")
        assert found
        assert all(value is True for value in found.values()), found
        assert error <= EXACT


@pytest.mark.parametrize("how", ["ddp", "fsdp"])
@pytest.mark.parametrize(
    ("estimator", "network", "share"),
    [
        ("vector", "residual", "uneven"),
        ("sampled", "language", "even"),
        ("expected", "centers", "one batch"),
    ],
)
def test_every_estimator_equals_one_process(two: Processes, estimator: str, network: str, share: str, how: str) -> None:
    for found in two.run(together.compare, network, how, share, estimator):
        error = found.pop("error")
        assert found
        assert all(value is True for value in found.values()), found
        assert error <= EXACT


@pytest.mark.parametrize(("network", "share"), [("convolutional", "uneven"), ("language", "empty")])
def test_local_mas_with_replicas_equals_one_process(two: Processes, network: str, share: str) -> None:
    for found in two.run(together.compare, network, "ddp", share, "local-mas"):
        error = found.pop("error")
        assert found
        assert all(value is True for value in found.values()), found
        assert error <= EXACT


@pytest.mark.parametrize("how", ["ddp", "fsdp"])
def test_training_goes_on_as_if_nothing_had_been(two: Processes, how: str) -> None:
    assert two.run(together.train_after, "residual", how) == [[True, True]] * 2


@pytest.mark.parametrize(
    "lengths",
    [((4, 3), (3, 3)), ((3, 3, 5), (3, 3, 3)), ((3, 3), (3, 6)), ((3, 6, 4), (3, 5))],
    ids=["other order", "a parameter more", "an operation without a rule", "all of it"],
)
def test_ranks_whose_samples_take_different_ways(two: Processes, lengths: tuple[tuple[int, ...], ...]) -> None:
    assert max(two.run(together.routed, lengths)) <= EXACT


def test_a_mesh_of_replicas_and_shards(two: Processes) -> None:
    assert max(two.run(together.hybrid)) <= EXACT


@pytest.mark.parametrize("how", ["ddp", "fsdp"])
def test_until_is_decided_together(two: Processes, how: str) -> None:
    first, second = two.run(together.sure, how)
    assert first == second
    assert first["count"][0] < first["count"][1]
    assert first["error"] <= 0.2
    assert first["further"] <= 0.12
    assert 0.5 < first["overlap"] <= 1
    assert first["same"]


@pytest.mark.parametrize("how", ["ddp", "fsdp"])
def test_saved_once_and_gone_on_from(two: Processes, how: str, tmp_path: Path) -> None:
    assert two.run(together.kept, how, str(tmp_path)) == [[True] * 8] * 2


@pytest.mark.parametrize("how", ["ddp", "fsdp"])
@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        ("NaN", "the inputs hold NaN or Inf: batch 1, sample 0; clean the data first.", "rank 1"),
        ("overflow", "is NaN or Inf for these inputs", "rank 1"),
        ("loader", "the disk is gone", "rank 1"),
        ("weights", "the weights of 'last.weight' hold NaN or Inf", "either"),
        ("no data", "the data hold no samples, so there is nothing to measure importance on.", "both"),
        ("into", "into= is not the same on all ranks", "both"),
    ],
)
def test_what_one_rank_refuses_all_refuse(two: Processes, kind: str, one: str, other: str, how: str) -> None:
    first, second = two.run(together.said, kind, how)
    assert one in second
    assert one.rstrip(".") in first
    if other == "rank 1":
        assert first.startswith("rank 1 of 2 could not go on: ")


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("ddp inside", "'last' inside the model is wrapped in DistributedDataParallel"),
        ("fsdp1", "is sharded by FullyShardedDataParallel (FSDP1)"),
        ("tensor parallel", "'last.weight', 'last.bias' is a DTensor that fully_shard has not made"),
        ("both", "'last.weight', 'last.bias' cannot be measured where it is"),
        ("merge", "one importance is sharded over processes and the other is not"),
    ],
)
def test_refused_by_name(two: Processes, kind: str, sentence: str) -> None:
    for found in two.run(together.refused, kind):
        assert sentence in found


@pytest.mark.parametrize("found", [False, True])
@pytest.mark.parametrize("how", ["ddp", "fsdp"])
def test_an_anchor_pulls_shards_as_it_pulls_the_whole(two: Processes, how: str, found: bool) -> None:
    assert max(two.run(together.anchored, how, found)) <= 1e-6


@pytest.mark.parametrize("how", ["ddp", "fsdp"])
def test_a_strength_that_keeps_answers_is_the_same_on_all(two: Processes, how: str) -> None:
    first, second = two.run(together.agreeing, how, True)
    assert len(first) > 2
    assert first == second


def test_other_probes_are_refused(two: Processes) -> None:
    sentence = "the set of probes is not the same on all ranks: rank 1 has another than rank 0."
    assert two.run(together.agreeing, "ddp", False) == [sentence] * 2


@pytest.mark.parametrize(("how", "forever"), [("ddp", False), ("fsdp", False), ("fsdp", True)])
def test_when_a_process_ends_the_others_end_with_an_error(how: str, forever: bool) -> None:
    processes = Processes(timeout=5)
    try:
        processes.start(together.lonely, how, forever)
        answer = processes.answer(0)
    finally:
        processes.close()
    assert "rank 0 of 2 has lost the others" in answer or "Connection closed by peer" in answer


@pytest.mark.parametrize("how", ["ddp", "fsdp"])
def test_packed_rows_of_other_numbers_of_documents(two: Processes, how: str) -> None:
    for found in two.run(together.packed, how, "mas"):
        assert found["count"] == 9
        assert found["error"] <= EXACT
