"""From interaction logs to datasets: readers, filters, splits, item embeddings and batches."""
