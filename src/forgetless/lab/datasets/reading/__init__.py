"""What the datasets share: downloads, archives, layouts, decoded pictures."""
