"""Users and what belongs to them, read from files of one row per user or one row per item."""
