"""The experiments: what the papers ran, and what we run."""
