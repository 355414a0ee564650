"""What several methods of merging share."""
