"""A Gradio Space that shows a model published with `etegrec push`: name it here or in the variable MODEL_ID."""

import os

from etegrec_hf.demo.page import serve
from etegrec_hf.demo.recommender import DemoRecommender

MODEL_ID = os.environ.get("MODEL_ID", "me/my-recommender")
DATA_ID = os.environ.get("DATA_ID")  # a prepared dataset, for users of its test split and for popular items

if __name__ == "__main__":
    serve(DemoRecommender.load(MODEL_ID, DATA_ID))
