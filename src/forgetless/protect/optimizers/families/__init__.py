"""One family of optimizers a file: `known(optimizer)` gives its form, a sentence why no pull can follow it, or None."""
