"""The page of `etegrec demo`: a trained recommender to be tried in a browser."""
