"""Published numbers, to be shown beside ours."""
