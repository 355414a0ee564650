"""Fine-tuning of a model that a person has, without losing what it does: what `forgetless learn` runs."""
