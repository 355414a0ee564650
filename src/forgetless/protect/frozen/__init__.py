"""Freezing: the core of a network stands still bit for bit while the rest is trained; `freeze` is the way in."""
