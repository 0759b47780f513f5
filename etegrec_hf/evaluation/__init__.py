"""Ranking metrics, tokenizer diagnostics and baselines."""
