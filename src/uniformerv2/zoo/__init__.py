"""Published and trained weights: cards, formats, downloads, loading and saving."""
