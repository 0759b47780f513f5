"""The pipeline with a search by ONNX Runtime."""

import tempfile
from pathlib import Path

import numpy as np
import torch

from ..models.modeling_etegrec import ETEGRecForConditionalGeneration
from ..models.pipeline_etegrec import SequentialRecommendationPipeline
from ..models.tokenization_etegrec import ETEGRecTokenizer
from ..runtime.export import export
from ..runtime.recommender import OnnxRecommender
from ..runtime.requests import Request, RequestOptions


class OnnxPipeline(SequentialRecommendationPipeline):
    """A [`SequentialRecommendationPipeline`] that exports its model when it is made, and searches with the export.

    Each search takes one processor thread; several searches may run at once.

    Args:
        model ([`ETEGRecForConditionalGeneration`]): a trained recommender on a CPU.
        tokenizer ([`ETEGRecTokenizer`]): the tokenizer from the same folder.

    Raises:
        ValueError: a model that can't be exported.
        ValueError: packages that exporting needs are missing.
        ImportError: onnxruntime is missing.
    """

    def __init__(self, model: ETEGRecForConditionalGeneration, tokenizer: ETEGRecTokenizer):
        super().__init__(model=model, tokenizer=tokenizer)
        with tempfile.TemporaryDirectory(prefix="etegrec_export_") as folder:
            self.recommender = OnnxRecommender(export(model, tokenizer, Path(folder, "export")), threads=1)

    def search(self, **asked):
        exclude, allowed = asked.pop("exclude"), asked.pop("allowed")
        del asked["attention_mask"]  # padding is 0
        asked.pop("max_batch_tokens", None)  # each request is searched for by itself
        rows = self.model.catalogue.items_of(asked.pop("input_ids")).tolist()  # [batch, items], 0 on padding
        excluded = [[]] * len(rows) if exclude is None else exclude.tolist()
        requests = [
            Request([item for item in items if item], [item for item in out if item])
            for items, out in zip(rows, excluded)
        ]
        chosen = None if allowed is None else np.asarray(allowed.cpu())
        items, scores = self.recommender.rank(requests, chosen, RequestOptions.of(asked))
        return torch.from_numpy(items), torch.from_numpy(scores)
