"""Learning a stream of tasks in one pass, with a small buffer: what every learner in `learn/learners` stands on."""
