"""The HTTP server of `etegrec serve`."""
