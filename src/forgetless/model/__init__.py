"""Your network and your data as this library sees them: names, batches, outputs, ranks; nothing is left changed."""
