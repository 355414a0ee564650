"""Finding the most similar of many keys, by FAISS.

FAISS (Douze et al., "The Faiss library", 2024, arXiv 2401.08281) and not an approximate graph (hnswlib, usearch): its
flat index is exact, so that no answer is silently missing, and fast enough at 100,000 keys (`benchmarks/retrieval.py`).
"""

from __future__ import annotations

import numpy as np

from forgetless.errors import ForgetlessError
from forgetless.model.shapes import Float


class Index:
    """Keys `[N, D]`, searched by inner product; exact.

    Args:
        keys: `[N, D]`, N of at least 1; searched as float32.

    Raises:
        ForgetlessError: no keys, keys that are not finite, or FAISS is not installed.
    """

    def __init__(self, keys: Float[np.ndarray, "n d"]) -> None:
        try:
            import faiss
        except ImportError as error:
            raise ForgetlessError("retrieval needs FAISS: pip install 'forgetless[facts]'.") from error
        if not len(keys):
            raise ForgetlessError("there is nothing to retrieve from: the set is empty.")
        if not bool(np.isfinite(keys).all()):
            raise ForgetlessError("the keys to be searched hold NaN or Inf.")
        self._index = faiss.IndexFlatIP(keys.shape[1])
        self._index.add(np.ascontiguousarray(keys, np.float32))

    def __len__(self) -> int:
        """How many keys there are."""
        return int(self._index.ntotal)

    def nearest(self, queries: Float[np.ndarray, "q d"], most: int) -> list[list[tuple[int, float]]]:
        """The numbers and the products of the most similar keys of every query, the most similar first.

        Args:
            queries: `[Q, D]`; searched as float32.
            most: how many; all where there are fewer.

        Raises:
            ForgetlessError: queries of another width or that are not finite, or none asked for.
        """
        if most < 1:
            raise ForgetlessError(f"at least one answer must be asked for, not {most}.")
        if queries.ndim != 2 or queries.shape[1] != self._index.d:
            raise ForgetlessError(f"the keys have {self._index.d} numbers and the queries {list(queries.shape)}.")
        if not bool(np.isfinite(queries).all()):
            raise ForgetlessError("the queries hold NaN or Inf.")  # FAISS would answer with the number −1
        products, numbers = self._index.search(np.ascontiguousarray(queries, np.float32), min(most, len(self)))
        return [
            [(int(number), float(product)) for number, product in zip(*each, strict=True)]
            for each in zip(numbers, products, strict=True)
        ]
