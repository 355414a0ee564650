"""Learning a stream of tasks in one pass, with a small buffer: what `learn/online_learners` stand on."""
