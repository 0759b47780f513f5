"""Recommending from an exported model: numpy and ONNX Runtime, neither torch nor transformers."""

from .recommender import OnnxRecommender as OnnxRecommender
from .requests import RequestOptions as RequestOptions
