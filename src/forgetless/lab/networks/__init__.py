"""The networks that experiments start from, each a trunk that takes pictures as they are decoded."""
