"""Estimators: (model, data) → Importance, one file each."""
