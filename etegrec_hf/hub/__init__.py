"""Between a model's folder and the Hub: training records, cards, publishing, and other people's checkpoints."""
