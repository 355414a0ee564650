"""The checks of `scripts/test_gpu.py`: each file holds one kind of them in its list `CHECKS`."""
