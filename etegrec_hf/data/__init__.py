"""Interactions in, datasets out: sources, filtering, splits, item embeddings, batches."""
