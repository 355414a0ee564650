"""What the measurement buys: the ways to measure Ω, which λ are trained, and the page's block."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from forgetless import Importance, files
from forgetless.lab.results.paired import Paired
from forgetless.learn.families.emulation import emulate
from studies.evidence import measured, measured_page
from studies.evidence.language_reading import LEVEL
from studies.evidence.measured import GRID, TRAINED, VARIANTS, bracket, lower, slug
from studies.evidence.measured_omegas import exact, flat, mean, moduli, within_tensors
from studies.repair_texts import Rows

ROOT = Path(__file__).parents[2]
COMMITTED = ROOT / "results" / "evidence" / "measured.json"


def network() -> Any:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 64}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=40, **sizes, **heads)).eval()


def rows(count: int) -> Rows:
    ids = torch.randint(40, (count, 13), generator=torch.Generator().manual_seed(1))
    return Rows(ids, ids)


def assert_alike(one: Importance, other: Importance) -> None:
    torch.testing.assert_close(one.mean(), other.mean(), rtol=1e-4, atol=1e-6)


def test_a_batch_of_one_window_is_exact() -> None:
    assert_alike(moduli(network(), rows(7)), exact(network(), rows(7)))


@pytest.mark.parametrize("size", [3, 7, 20])
def test_batches_are_those_of_other_codes_whatever_fits_the_memory(size: int) -> None:
    model, some = network(), rows(7)
    theirs = emulate(
        model, {"input_ids": some.ids[:, :-1]}, batch_size=size, forward=lambda model, batch: model(**batch)
    )
    assert_alike(moduli(model, some, size, chunk=2), theirs)
    assert mean(moduli(model, some, size)) < mean(exact(model, some))


def test_a_power_is_that_of_each_windows_gradient() -> None:
    model, one = network(), rows(1)
    first = flat(exact(model, one))
    for power in (0.5, 2):
        torch.testing.assert_close(flat(moduli(model, one, power=power)), first**power, rtol=1e-4, atol=1e-6)


def test_within_tensors_every_mean_is_1() -> None:
    named = {"a": torch.tensor([1.0, 3.0]), "b": torch.tensor([[10.0], [50.0]]), "none": torch.zeros(3)}
    found = within_tensors(Importance(named, 5)).mean()
    assert {name: float(each.mean()) for name, each in found.items()} == pytest.approx({"a": 1, "b": 1, "none": 0})
    assert float(found["a"][1] / found["a"][0]) == pytest.approx(3)


def test_weights_are_compared_by_name_and_not_by_order() -> None:
    one, other = torch.tensor([1.0, 2.0]), torch.tensor([3.0])
    assert flat(Importance({"b": one, "a": other}, 1)).equal(flat(Importance({"a": other, "b": one}, 1)))


@pytest.mark.parametrize("first", range(len(GRID)))
@pytest.mark.parametrize("fails", range(len(GRID) + 1))
def test_neighbors_on_both_sides_of_the_level_are_trained(first: int, fails: int) -> None:
    asked: list[int] = []

    def kept(at: int) -> float:
        asked.append(at)
        return LEVEL + (0.01 if at < fails else -0.01)

    bracket(kept, first)
    wanted = {at for at in (fails - 1, fails) if 0 <= at < len(GRID)}
    assert wanted <= set(asked)
    assert len(set(asked)) == max(asked) - min(asked) + 1, "neighbors"
    assert lower([LEVEL + 0.01] * fails + [LEVEL - 0.01] * (len(GRID) - fails)) == max(0, fails - 1)


def test_every_trained_name_is_a_variant_with_a_file_of_its_own() -> None:
    assert set(TRAINED) < VARIANTS.keys()
    assert len({slug(name) for name in (*TRAINED, *VARIANTS)}) == len({*TRAINED, *VARIANTS})


def test_the_page_says_what_the_committed_runs_do(tmp_path: Path) -> None:
    pytest.importorskip("scipy")
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- measured -->\n<!-- end of measured -->\nafter\n")
    measured_page.write(COMMITTED.parent, page, ROOT / measured.KNOWN)
    text, found = page.read_text(), files.read_sealed(COMMITTED)
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    some = measured_page.joined(found, ROOT / measured.KNOWN)
    for name in {row["variant"] for row in found["compared"]}:
        (line,) = (line for line in text.splitlines() if line.startswith(f"| {name} | ") and line.count("|") == 9)
        trained = measured_page.whole(some, "MAS" if name == "reference" else name)
        assert ("| – |" in line) is not trained
    for question in measured_page.QUESTIONS.values():
        assert text.count(f"**{question}**") == 1


def test_a_page_without_results_stays(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("as it was")
    measured_page.write(tmp_path, page)
    assert page.read_text() == "as it was"


def test_what_is_said_follows_from_the_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {
        "batches of 8": Paired(2, 1, 3, 1, 3),
        "batches of 32": Paired(-2, -3, -1, 1, 3),
        "batches of 128": Paired(-2, -5, 1, 1, 3),
    }
    monkeypatch.setattr(measured_page, "whole", lambda _, name: name in found)
    monkeypatch.setattr(measured_page, "behind", lambda _, name: found[name])
    line, *_, last = measured_page.answers({"a batch of 513"}, [])
    assert "More than the reference: batches of 8 +2 [+1, +3]. Less than the reference: batches of 32 -2" in line
    assert "Not told apart from it by three fine-tunings: batches of 128 -2 [-5, +1]. Measured, but not trained" in line
    assert line.endswith("a batch of 513.")
    assert "batches of 8." in last
    monkeypatch.setattr(measured_page, "whole", lambda _, name: name == "batches of 128")
    assert "Nothing that was trained is ahead" in [*measured_page.answers({"a batch of 513"}, [])][-1]
