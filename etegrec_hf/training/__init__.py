"""Losses, code assignment, arguments, callbacks and trainers."""
