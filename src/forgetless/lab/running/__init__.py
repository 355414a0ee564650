"""Running an experiment: every method, seed and order, in several processes, into a directory that can be continued."""
