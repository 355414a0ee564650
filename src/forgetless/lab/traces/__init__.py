"""Traces: how a run moved the weights, what it protected, and what it answered, kept on the way for its page."""

from __future__ import annotations

from forgetless.lab.traces.album import Album, Written, albums
from forgetless.lab.traces.recorder import Recorder
from forgetless.lab.traces.trace import Answer, Layer, Moved, TaskEnd, Trace, Traces, latest, read

__all__ = [
    "Album",
    "Answer",
    "Layer",
    "Moved",
    "Recorder",
    "TaskEnd",
    "Trace",
    "Traces",
    "Written",
    "albums",
    "latest",
    "read",
]
