"""Teach a trained PyTorch network something new without losing what it knows."""

__version__ = "0.1.0"
