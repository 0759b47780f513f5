"""Ranking metrics, evaluation, recommendations for many users, baselines and diagnostics of item tokenizers."""
