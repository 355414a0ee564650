"""The networks that experiments start from, each a backbone that takes pictures as they are decoded."""
