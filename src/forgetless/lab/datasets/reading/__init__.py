"""What the data sets share: downloads, archives, layouts, decoded pictures."""
