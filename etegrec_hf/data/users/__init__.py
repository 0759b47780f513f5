"""Histories and items of users, read from files with one row per user or one row per item."""
