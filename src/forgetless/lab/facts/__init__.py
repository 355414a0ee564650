"""Facts: their words and vectors, retrieval, and what a trained run answers."""
