"""Language models as people have them: packed documents are samples, and masks choose the positions that count.

What is right is a loop over the documents, each alone and without padding through a model of transformers.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import forgetless
from exactness import error
from forgetless.errors import ForgetlessError
from forgetless.measure.normalized import mean_squared_norm
from forgetless.measure.verify.verification import verify

transformers = pytest.importorskip("transformers")

LENGTHS = [5, 3, 7, 2, 4, 5, 6]
TOKENS = 15
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}


def llama() -> nn.Module:
    sizes = {"vocab_size": TOKENS, "num_key_value_heads": 1, "max_position_embeddings": 32}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, **SMALL))


def gpt2() -> nn.Module:
    sizes = {"vocab_size": TOKENS, "n_positions": 32, "n_embd": 16, "n_layer": 1, "n_head": 2}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, bos_token_id=0, eos_token_id=0))


def t5() -> nn.Module:
    sizes = {"vocab_size": TOKENS, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2}
    return transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes, decoder_start_token_id=0))


def bert_for_answers() -> nn.Module:
    return transformers.BertForQuestionAnswering(transformers.BertConfig(vocab_size=TOKENS, **SMALL))


def bert_for_tags() -> nn.Module:
    return transformers.BertForTokenClassification(transformers.BertConfig(vocab_size=TOKENS, **SMALL))


@cache
def made(build: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return build().double().eval()


def texts(lengths: Iterable[int] = LENGTHS, seed: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(1, TOKENS, (n,), generator=generator) for n in lengths]


def positions(documents: Iterable[Tensor]) -> Tensor:
    return torch.cat([torch.arange(len(each)) for each in documents])


def packed(documents: list[Tensor]) -> dict[str, Tensor]:
    return {"input_ids": torch.cat(documents)[None], "position_ids": positions(documents)[None]}


def loop(model: nn.Module, samples: Iterable[Any], f: Callable[[nn.Module, Any], Tensor]) -> dict[str, Tensor]:
    """`Σ_n |∂‖F_n‖² / ∂θ|`, by autograd alone."""
    sums = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
    for sample in samples:
        gradients = torch.autograd.grad(f(model, sample).square().sum(), list(model.parameters()), allow_unused=True)
        for total, gradient in zip(sums.values(), gradients, strict=True):
            total += 0 if gradient is None else gradient.abs()
    return sums


def logits(model: nn.Module, document: Tensor) -> Tensor:
    found: Tensor = model(input_ids=document[None]).logits
    return found


def off(found: forgetless.Importance, expected: dict[str, Tensor]) -> float:
    """The largest error of a parameter."""
    largest = max(float(total.max()) for total in expected.values())
    return max(error(found.sums[name], total, largest) for name, total in expected.items())


def measured(model: nn.Module, data: Any, **options: Any) -> forgetless.Importance:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what is slow is said
        return forgetless.mas(model, data, progress=False, **options)


@pytest.mark.parametrize("build", [llama, gpt2])
def test_documents_of_a_padding_free_batch_are_samples(build: Callable[[], nn.Module]) -> None:
    model, documents = made(build), texts()
    expected = loop(model, documents, logits)
    for data in (packed(documents), [packed(documents[:3]), packed(documents[3:])]):
        found = measured(model, data)
        assert found.count == 7
        assert off(found, expected) < 1e-10
    reference = forgetless.reference.mas(model, packed(documents))
    assert reference.count == 7
    assert off(reference, expected) < 1e-12


@settings(max_examples=8)
@given(lengths=st.lists(st.lists(st.integers(2, 8), min_size=1, max_size=3), min_size=1, max_size=3), data=st.data())
def test_documents_in_random_rows_equal_the_loop(lengths: list[list[int]], data: st.DataObject) -> None:
    model, rows = made(gpt2), [texts(own, seed=k) for k, own in enumerate(lengths)]
    longest = max(map(sum, lengths))
    batch = {
        "input_ids": torch.stack(
            [nn.functional.pad(torch.cat(row), (0, longest - len(torch.cat(row)))) for row in rows]
        ),
        "position_ids": torch.stack([nn.functional.pad(positions(r), (0, longest - len(positions(r)))) for r in rows]),
    }
    batch_size = data.draw(st.sampled_from([None, 1, 2]))
    found = forgetless.mas(model, batch, batch_size=batch_size, progress=False)
    documents = [document for row in rows for document in row]
    assert found.count == len(documents)
    assert off(found, loop(model, documents, logits)) < 1e-10


def test_a_packed_row_computes_what_its_documents_do_only_without_a_cache_and_a_mask() -> None:
    model, documents = made(gpt2), texts()
    alone = torch.cat([logits(model, each)[0] for each in documents])
    batch = packed(documents)
    assert torch.allclose(model(**batch, use_cache=False).logits[0], alone, atol=1e-10)
    assert not torch.allclose(model(**batch, use_cache=True).logits[0], alone, atol=1e-3)
    mask = torch.ones_like(batch["input_ids"])
    assert not torch.allclose(model(**batch, attention_mask=mask, use_cache=False).logits[0], alone, atol=1e-3)
    assert off(measured(model, {**batch, "attention_mask": mask}), loop(model, documents, logits)) < 1e-10


def test_what_trl_packs_and_flattens() -> None:
    datasets, trl = pytest.importorskip("datasets"), pytest.importorskip("trl")
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    model, documents = made(llama), texts()
    expected = loop(model, documents, logits)
    rows = datasets.Dataset.from_dict({"input_ids": [each.tolist() for each in documents]})
    flat = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)
    flat_padded = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True, pad_to_multiple_of=8)
    for data in (rows, trl.pack_dataset(rows, seq_length=10, strategy="bfd")):
        for collator in (flat, flat_padded):
            found = measured(model, data, collate_fn=collator, batch_size=3)
            assert found.count == 7
            assert off(found, expected) < 1e-10
    wrapped = trl.pack_dataset(rows, seq_length=8, strategy="wrapped")  # which says nothing of documents
    assert measured(model, wrapped, collate_fn=flat).count == 4
    assert measured(model, wrapped).count == 4


def test_what_transformers_flattens() -> None:
    model, documents = made(llama), texts()
    samples = [{"input_ids": each.tolist()} for each in documents]
    told = {"return_flash_attn_kwargs": True, "return_seq_idx": True}
    for options in ({}, told, {**told, "return_position_ids": False}):
        collator = transformers.DataCollatorWithFlattening(**options)
        found = measured(model, samples, collate_fn=collator)
        assert found.count == 7
        assert off(found, loop(model, documents, logits)) < 1e-10


@pytest.mark.parametrize("estimator", [forgetless.fisher, forgetless.output_curvature, forgetless.local_mas])
def test_every_estimator_takes_documents(estimator: Callable[..., forgetless.Importance]) -> None:
    model, documents = made(gpt2), texts()
    alone = [packed([document]) for document in documents]
    found = estimator(model, packed(documents), progress=False)
    assert found.count == 7
    assert off(found, estimator(model, alone, progress=False).sums) < 1e-10  # the same draws for the same document


def test_verifying_a_packed_batch_verifies_its_documents() -> None:
    found = verify(made(gpt2), packed(texts([4, 2, 3])), forgetless.reference.mas)
    assert found.samples == 3
    assert max(row.float64 for row in found.rows) < 1e-10
    assert {row.path for row in found.rows} == {"batch"}


class Mixing(nn.Module):
    """Every token sees the mean of its row, whatever the attention mask says."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(TOKENS, 6), nn.Linear(6, 4)

    def forward(self, input_ids: Tensor, **_: Any) -> Tensor:
        found = self.words(input_ids)
        return self.head(found + found.mean(1, keepdim=True))  # type: ignore[no-any-return]


def test_documents_that_padding_would_change_are_not_padded() -> None:
    model, documents = made(Mixing), texts()
    with pytest.warns(UserWarning, match="the network computes something else for a document that is padded"):
        found = forgetless.mas(model, packed(documents), progress=False)
    assert off(found, loop(model, documents, lambda model, document: model(document[None]))) < 1e-10
    for estimator, options in ((forgetless.fisher, {"labels": "expected"}), (forgetless.output_curvature, {})):
        with pytest.warns(UserWarning, match="the network computes something else"):
            estimator(model, packed(texts([4, 3])), progress=False, **options)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            estimator(made(gpt2), packed(texts([4, 3])), progress=False, **options)


def test_how_sure_it_is_is_told_from_packed_batches() -> None:
    data = [packed(texts([6, 2, 3], seed=k)) for k in range(9)]
    found = forgetless.mas(made(gpt2), data, until=lambda importance: importance.count >= 24, progress=False)
    assert found.confidence is not None
    assert found.confidence.batches == found.count / 3 == 8  # not the parts of like length, which differ by intention
    assert found.confidence.half_count == 12


def test_the_mean_norm_is_that_of_documents() -> None:
    model, documents = made(gpt2), texts()
    expected = sum(float(logits(model, each).square().sum()) for each in documents) / 7
    assert mean_squared_norm(model, packed(documents)) == pytest.approx(expected, rel=1e-12)
    first = float(logits(model, documents[0]).square().sum())
    assert mean_squared_norm(model, packed(documents), samples=1) == pytest.approx(first, rel=1e-12)


IGNORED = -100


def completions(documents: list[Tensor]) -> list[Tensor]:
    """Labels of which the first half is a prompt."""
    return [torch.where(torch.arange(len(each)) < len(each) // 2, IGNORED, each) for each in documents]


def padded(tensors: list[Tensor], value: int = 0) -> Tensor:
    return nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=value)


def together(documents: list[Tensor]) -> dict[str, Tensor]:
    return {
        "input_ids": padded(documents),
        "attention_mask": padded([torch.ones_like(each) for each in documents]),
        "labels": padded(completions(documents), IGNORED),
    }


def test_labels_of_a_causal_model_choose_the_positions_before_them() -> None:
    model, documents = made(gpt2), texts()

    def predicting(model: nn.Module, document: Tensor) -> Tensor:
        (labels,) = completions([document])
        return logits(model, document)[0, :-1][labels[1:] != IGNORED]

    expected = loop(model, documents, predicting)
    assert off(measured(model, together(documents), mask="labels"), expected) < 1e-10
    flat = {**packed(documents), "labels": torch.cat(completions(documents))[None]}
    assert off(measured(model, flat, mask="labels"), expected) < 1e-10
    assert off(measured(model, together(documents)), expected) > 0.1
    reference = forgetless.reference.mas(model, flat, mask="labels")
    assert off(reference, expected) < 1e-12


def test_labels_of_tags_are_of_their_own_position() -> None:
    model, documents = made(bert_for_tags), texts()

    def tagged(model: nn.Module, document: Tensor) -> Tensor:
        return logits(model, document)[0][completions([document])[0] != IGNORED]

    assert off(measured(model, together(documents), mask="labels"), loop(model, documents, tagged)) < 1e-10


def test_a_callable_chooses_and_none_takes_all() -> None:
    model, documents = made(gpt2), texts()
    batch = together(documents)

    def last(given: dict[str, Tensor]) -> Tensor:
        mask = given["attention_mask"]
        return mask * mask.cumsum(1) == mask.sum(1, keepdim=True)

    expected = loop(model, documents, lambda model, document: logits(model, document)[0, -1])
    assert off(measured(model, batch, mask=last), expected) < 1e-10
    whole = forgetless.reference.mas(model, batch, mask=None)
    assert off(measured(model, batch, mask=None), whole.sums) < 1e-10
    assert off(whole, loop(model, documents, logits)) > 0.01


def locally(model: nn.Module, data: Any, **options: Any) -> forgetless.Importance:
    return forgetless.local_mas(model, data, progress=False, **options)


@pytest.mark.parametrize("build", [gpt2, bert_for_tags], ids=lambda build: build.__name__)
def test_local_mas_leaves_padding_out_of_every_layer(build: Callable[..., Any]) -> None:
    model, documents = made(build), texts()
    alone = locally(model, [{"input_ids": each[None]} for each in documents])
    assert off(locally(model, together(documents)), alone.sums) < 1e-10
    assert off(locally(model, together(documents), mask=None), alone.sums) > 0.01


def test_local_mas_takes_the_positions_that_were_asked_for() -> None:
    model, documents = made(gpt2), texts()

    def first(given: Any) -> Tensor:
        return torch.arange(given["input_ids"].shape[1]).expand_as(given["input_ids"]) < 1

    def asked(given: Any) -> Tensor:  # label t + 1 is there: from the last of the prompt on
        length = given["input_ids"].shape[1]
        place = torch.arange(length)[None]
        return (place >= length // 2 - 1) & (place < length - 1)

    heads = [{"input_ids": each[None, :1]} for each in documents]
    assert off(locally(model, together(documents), mask=first), locally(model, heads).sums) < 1e-10
    alone = [{"input_ids": each[None]} for each in documents]
    expected = locally(model, alone, mask=asked)
    assert off(locally(model, together(documents), mask="labels"), expected.sums) < 1e-10


class TimeFirst(nn.Module):
    """Tokens `[N, T]`, computed as `[T, N, …]`, as rows, and without positions."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix, self.head = nn.Embedding(9, 4), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        hidden = torch.relu(self.mix(self.embed(input_ids.T)))
        rows = self.mix(hidden.transpose(0, 1).reshape(-1, 4)).view(*input_ids.shape, 4)
        rows = torch.where(mask[..., None] > 0, rows, 0)
        return self.head(rows.sum(1) / mask.sum(1, keepdim=True))  # type: ignore[no-any-return]


def test_local_mas_knows_positions_in_other_places() -> None:
    torch.manual_seed(0)
    model, documents = TimeFirst().double().eval(), [torch.randint(9, (length,)) for length in (5, 2, 3, 1)]
    alone = locally(model, [{"input_ids": each[None]} for each in documents])
    batch = together(documents)
    assert off(locally(model, batch), alone.sums) < 1e-10
    assert off(locally(model, batch, mask=None), alone.sums) > 0.01


class Routed(TimeFirst):
    """Every second row takes another way."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        return super().forward(input_ids, attention_mask) + self.mix(self.embed(input_ids).flatten(0, 1)[::2]).mean()


def test_local_mas_refuses_padding_that_it_cannot_place() -> None:
    torch.manual_seed(0)
    documents = [torch.randint(9, (length,)) for length in (5, 3)]
    with pytest.raises(forgetless.ForgetlessError, match=r"has the shape \(3, 4\), which does not show .* mask=None"):
        locally(Routed().double().eval(), together(documents))
    with pytest.raises(forgetless.ForgetlessError, match="encoder-decoder count cannot be told inside of it"):
        locally(made(t5), {**together(documents), "decoder_input_ids": padded(documents)})
    with pytest.raises(forgetless.ForgetlessError, match=r"must be \[N, T\], a number for every position, not \(2,\)"):
        locally(made(gpt2), together(documents), mask=lambda given: given["input_ids"][:, 0])
    with pytest.raises(forgetless.ForgetlessError, match="the batch has no labels"):
        locally(made(gpt2), {"input_ids": padded(documents)}, mask="labels")


def test_fisher_takes_masks_too() -> None:
    model, batch = made(gpt2), together(texts([4, 2, 3]))
    for labels in ("sampled", "expected"):
        found = forgetless.fisher(model, batch, labels=labels, mask="labels", progress=False)
        expected = forgetless.reference.fisher(model, batch, labels=labels, mask="labels")
        assert off(found, expected.sums) < 1e-10


@pytest.mark.parametrize(
    ("batch", "mask", "sentence"),
    [
        ({"input_ids": torch.ones(3, 4, dtype=torch.long)}, "labels", 'mask="labels" counts the .* has no labels'),
        (
            {"input_ids": torch.ones(3, 4, dtype=torch.long), "labels": torch.ones(3, dtype=torch.long)},
            "labels",
            r'the labels, by which mask="labels" chooses positions, must be \[N, T\], .* \(.*, 4, 15\), not \(.*,\)',
        ),
        (
            {"input_ids": torch.ones(3, 4, dtype=torch.long)},
            lambda batch: batch["input_ids"][:, :2] > 0,
            r"what mask= returned must be \[N, T\], a number for every position of the output .*, not \(., 2\)",
        ),
        ({"input_ids": torch.ones(3, 4, dtype=torch.long)}, lambda batch: 3, r"what mask= returned .*, not int"),
    ],
)
def test_masks_that_choose_nothing(batch: Any, mask: Any, sentence: str) -> None:
    with pytest.raises(ForgetlessError, match=sentence):
        forgetless.mas(made(gpt2), batch, mask=mask, progress=False)


def test_empirical_labels_leave_positions_out_already() -> None:
    with pytest.raises(ForgetlessError, match='labels="empirical" leaves out positions without a label by itself'):
        forgetless.fisher(made(gpt2), together(texts()), labels="empirical", mask="labels", progress=False)


@pytest.mark.parametrize("told", ["a decoder's mask", "labels", "labels as the mask"])
def test_of_an_encoder_decoder_the_decoders_positions_count(told: str) -> None:
    model, sources, targets = made(t5), texts(), texts([3, 6, 2, 4, 5, 2, 3], seed=2)
    batch = {
        "input_ids": padded(sources),
        "attention_mask": padded([torch.ones_like(each) for each in sources]),
        "decoder_input_ids": padded(targets),
    }
    if told == "a decoder's mask":
        batch["decoder_attention_mask"] = padded([torch.ones_like(each) for each in targets])
    else:
        batch["labels"] = padded(targets, IGNORED)  # as DataCollatorForSeq2Seq gives them

    def answer(model: nn.Module, pair: tuple[Tensor, Tensor]) -> Tensor:
        found: Tensor = model(input_ids=pair[0][None], decoder_input_ids=pair[1][None]).logits
        return found

    found = measured(model, batch, mask="labels" if told == "labels as the mask" else "auto")
    assert off(found, loop(model, zip(sources, targets, strict=True), answer)) < 1e-10


def test_an_encoder_decoder_makes_its_decoders_inputs_of_the_labels() -> None:
    model, sources, targets = made(t5), texts(), texts([3, 6, 2, 4, 5, 2, 3], seed=2)
    batch = {
        "input_ids": padded(sources),
        "attention_mask": padded([torch.ones_like(each) for each in sources]),
        "labels": padded(targets, IGNORED),
    }

    def answer(model: nn.Module, pair: tuple[Tensor, Tensor]) -> Tensor:
        found: Tensor = model(input_ids=pair[0][None], labels=pair[1][None]).logits
        return found

    expected = loop(model, zip(sources, targets, strict=True), answer)
    for mask in ("auto", "labels"):
        assert off(measured(model, batch, mask=mask), expected) < 1e-10


def test_a_padded_decoder_without_a_mask_is_told() -> None:
    batch = {"input_ids": padded(texts()), "decoder_input_ids": padded(texts())}
    with pytest.warns(UserWarning, match="decoder_input_ids end in padding and there is no decoder_attention_mask"):
        forgetless.mas(made(t5), batch, progress=False)
    measured(made(t5), batch, mask=None)


def test_both_heads_of_answers_leave_padding_out() -> None:
    model, documents = made(bert_for_answers), texts()

    def spans(model: nn.Module, document: Tensor) -> Tensor:
        result = model(input_ids=document[None])
        return torch.cat([result.start_logits, result.end_logits])

    batch = {key: value for key, value in together(documents).items() if key != "labels"}
    found = measured(model, batch, output=["start_logits", "end_logits"])
    assert off(found, loop(model, documents, spans)) < 1e-10


@pytest.mark.parametrize("kind", ["text", "image"])
def test_embeddings_of_constant_norm_are_told_and_have_a_way_out(kind: str) -> None:
    torch.manual_seed(0)
    text = {"vocab_size": TOKENS, "max_position_embeddings": 8, "eos_token_id": 1, **SMALL}
    vision = {"image_size": 16, "patch_size": 8, **SMALL}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
    model = transformers.CLIPModel(config).double().eval()
    batch = {"input_ids": torch.stack(texts([6] * 4)), "pixel_values": torch.randn(4, 3, 16, 16).double()}
    with pytest.warns(UserWarning, match="the norm of this output is constant"):
        forgetless.mas(model, batch, output=f"{kind}_embeds", progress=False)
    tower = "text_projection" if kind == "text" else "visual_projection"
    inputs = {"input_ids": batch["input_ids"]} if kind == "text" else {"pixel_values": batch["pixel_values"]}

    def before(model: nn.Module, given: Any) -> Tensor:
        parts: Any = model.text_model(**given) if kind == "text" else model.vision_model(**given)
        found: Tensor = getattr(model, tower)(parts.pooler_output)
        return found

    found = measured(model, inputs, forward=before)
    expected = forgetless.reference.mas(model, inputs, forward=before)
    assert off(found, expected.sums) < 1e-10
    assert float(found.sums[f"{tower}.weight"].max()) > 1e-6


def test_a_measurement_takes_samples_by_its_collate_fn() -> None:
    model, documents = made(llama), texts()
    samples = [{"input_ids": each.tolist()} for each in documents]
    measurement = forgetless.Measurement(model, collate_fn=transformers.DataCollatorWithFlattening())
    assert [measurement.add(samples[:3]), measurement.add(samples[3:])] == [3, 4]
    assert off(measurement.importance(), loop(model, documents, logits)) < 1e-10


def test_the_page_runs() -> None:
    datasets, trl = pytest.importorskip("datasets"), pytest.importorskip("trl")
    tokenizers = pytest.importorskip("tokenizers")
    words = {word: n for n, word in enumerate(["[PAD]", "the", "cat", "sat", "on", "a", "mat"])}
    kind = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[PAD]"))
    kind.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=kind, pad_token="[PAD]")
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    lines = ["the cat sat", "a mat on", "on a mat", "the mat sat"]
    tokenized = datasets.Dataset.from_dict({"text": lines, **tokenizer(lines)})
    tokens = tokenized.select_columns(["input_ids"])
    page = (Path(__file__).parents[3] / "docs" / "language-models.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    names: dict[str, Any] = {
        "forgetless": forgetless,
        "transformers": transformers,
        "model": made(gpt2),
        "texts": lines,
        "tokenizer": tokenizer,
        "tokenized": tokenized,
        "packed": trl.pack_dataset(tokens, seq_length=7, strategy="bfd"),
    }
    for block in blocks:
        exec(block, names)
        assert names["importance"].count == 4
    assert names["measurement"].count == 2
