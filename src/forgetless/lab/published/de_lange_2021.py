"""De Lange, Aljundi, Masana, Parisot, Jia, Leonardis, Slabaugh, Tuytelaars, "A continual learning survey".

"Defying forgetting in classification tasks", TPAMI 2021, arXiv 1909.08383: where its search for λ starts.
"""

from __future__ import annotations

#: Method → the first λ that stability decay tries; methods that are not named start at MAS's.
STARTS = {
    "mas": 3.0,
    **dict.fromkeys(("ewc", "online-ewc", "si"), 400.0),
    **dict.fromkeys(("lwf", "ebll"), 10.0),
    **dict.fromkeys(("imm-mean", "imm-mode"), 0.01),
}
