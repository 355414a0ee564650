"""`Importance` → what happens after an optimizer's step: the anchor, its strength, how much was forgotten."""
