"""(model, data) → `Importance`: how much every parameter matters to what the network computes."""
