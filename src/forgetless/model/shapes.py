"""Shapes in annotations, `Float[Tensor, "n t o"]`: checked while the tests run, free for everybody else.

The tests load jaxtyping first; where nobody has, an annotation is its tensor and nothing is imported. Index letters: n
sample, t position, i in, o out, c class, channel or fact, k task, q query, p part, d dimension.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or "jaxtyping" in sys.modules:
    from jaxtyping import Bool as Bool
    from jaxtyping import Float as Float
    from jaxtyping import Int as Int
else:

    class Float:
        """A float tensor; its shape is for readers."""

        def __class_getitem__(cls, item: tuple[Any, str]) -> Any:
            """The kind of tensor alone."""
            return item[0]

    Int = Float
    Bool = Float
