"""`make soak`: what takes too long for the suite, resumable, one JSON file of results for each part."""
