"""What is measured, an estimator a file: an open list."""
