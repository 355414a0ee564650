"""Picture sets: where each is to be had, how its files are laid out, and reading them."""
