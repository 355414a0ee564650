"""How much of its old use a network has forgotten so far."""
