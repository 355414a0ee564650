"""A stream of tasks: what is learned, by which method, and the loop that runs them."""
