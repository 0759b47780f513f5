"""Recommends from an exported model with numpy and ONNX Runtime, without torch and transformers."""

from .recommender import OnnxRecommender as OnnxRecommender
from .requests import RequestOptions as RequestOptions
