"""How a text becomes tokens and back: bytes, or pieces of words learned from the training texts (byte-level BPE)."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from forgetless.errors import ForgetlessError, brief
from forgetless.lab.long_text.corpora import Document


class Vocabulary(ABC):
    """Tokens of texts.

    Attributes:
        symbols: how many different tokens there are.
    """

    symbols: int

    @abstractmethod
    def encode(self, text: bytes, name: str) -> Tensor:
        """The tokens of a text, `[S]`, uint8 or int32. `name` is the text's, for messages.

        Raises:
            ForgetlessError: a text that cannot be told in these tokens.
        """

    @abstractmethod
    def decode(self, tokens: Sequence[int]) -> bytes:
        """The bytes of tokens."""

    @abstractmethod
    def saved(self) -> dict[str, Any]:
        """What `vocabulary` makes it from again; JSON-able."""


class Bytes(Vocabulary):
    """Every byte is a token."""

    symbols = 256

    def encode(self, text: bytes, name: str) -> Tensor:
        """See `Vocabulary.encode`; uint8, and never refused."""
        return torch.from_numpy(np.frombuffer(text, np.uint8).copy())

    def decode(self, tokens: Sequence[int]) -> bytes:
        """The bytes."""
        return bytes(tokens)

    def saved(self) -> dict[str, Any]:
        """Its kind."""
        return {"kind": "bytes"}


class Pieces(Vocabulary):
    """Byte-level BPE by the library `tokenizers`; every text in UTF-8 comes back to the byte.

    Args:
        definition: the library's own JSON.

    Raises:
        ForgetlessError: `tokenizers` is not installed, or the definition is not one.
    """

    def __init__(self, definition: str) -> None:
        try:
            self._tokenizer = _tokenizers().Tokenizer.from_str(definition)
        except ForgetlessError:
            raise
        except Exception as error:
            raise ForgetlessError(f"this is no definition of a tokenizer: {brief(error)}.") from error
        self.symbols = self._tokenizer.get_vocab_size()

    @classmethod
    def learned(cls, documents: Iterable[Document], symbols: int) -> Pieces:
        """Learn so many pieces from texts.

        Raises:
            ForgetlessError: a text is not UTF-8 (with the offset), or fewer than 256 pieces are asked for.
        """
        library = _tokenizers()
        if symbols < 256:
            raise ForgetlessError(f"a vocabulary of pieces has at least the 256 bytes, not {symbols}.")
        tokenizer = library.Tokenizer(library.models.BPE())
        tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = library.decoders.ByteLevel()
        trainer = library.trainers.BpeTrainer(
            vocab_size=symbols,
            initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator((_text(each.read(), each.name) for each in documents), trainer)
        return cls(tokenizer.to_str())

    def encode(self, text: bytes, name: str) -> Tensor:
        """See `Vocabulary.encode`; int32.

        Raises:
            ForgetlessError: the text is not UTF-8 (with the offset).
        """
        return torch.tensor(self._tokenizer.encode(_text(text, name)).ids, dtype=torch.int32)

    def decode(self, tokens: Sequence[int]) -> bytes:
        """The bytes of the pieces; a character that is cut stays cut."""
        pieces = (self._tokenizer.id_to_token(token) for token in tokens)
        return bytes(_BYTE[letter] for piece in pieces for letter in piece)

    def saved(self) -> dict[str, Any]:
        """The library's JSON."""
        return {"kind": "pieces", "definition": json.loads(self._tokenizer.to_str())}


def vocabulary(saved: Mapping[str, Any]) -> Vocabulary:
    """The vocabulary that gave `saved`.

    Raises:
        ForgetlessError: it is of another kind, or `tokenizers` is not installed.
    """
    if saved.get("kind") == "bytes":
        return Bytes()
    if saved.get("kind") == "pieces":
        return Pieces(json.dumps(saved.get("definition")))
    raise ForgetlessError(f"there is no vocabulary of the kind {saved.get('kind')!r}.")


def _text(text: bytes, name: str) -> str:
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ForgetlessError(
            f"{name} is not UTF-8: the byte {text[error.start]:#04x} at offset {error.start} begins no character; "
            "convert it, or take --vocabulary bytes."
        ) from error


def _tokenizers() -> Any:
    try:
        import tokenizers
        import tokenizers.decoders
        import tokenizers.models
        import tokenizers.pre_tokenizers
        import tokenizers.trainers
    except ImportError as error:
        raise ForgetlessError(
            "a vocabulary of pieces needs the package tokenizers: pip install tokenizers, or take --vocabulary bytes."
        ) from error
    return tokenizers


def _byte_of_letter() -> dict[str, int]:
    """GPT-2's letters for bytes: printable ones stand for themselves, the others follow from 256 on."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + n): byte for n, byte in enumerate(others)}


_BYTE = _byte_of_letter()
