"""Training records, model cards, reports, publishing on the Hub, and conversion of other people's checkpoints."""
