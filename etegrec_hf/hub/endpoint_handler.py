"""Answers requests of an Inference Endpoint with recommended items. It needs torch and transformers alone."""

import torch
from transformers import pipeline

PARAMETERS = (
    *("top_k", "num_beams", "exclude", "allowed", "exclude_history"),
    *("rerank_weight", "transition_weight", "unknown", "on_empty"),
)


class EndpointHandler:
    """The handler that an Inference Endpoint makes once, and calls for each request.

    Args:
        path (`str`): the repository's folder.
    """

    def __init__(self, path: str = ""):
        device = 0 if torch.cuda.is_available() else -1
        self.recommend = pipeline(
            "sequential-recommendation", model=str(path), trust_remote_code=True, device=device
        )  # the code is this folder's own

    def __call__(self, data: dict) -> list:
        """Recommends for one history or for many.

        Args:
            data (`dict`): `inputs` is a history (item ids, oldest first) or a list of histories. Instead of a history,
                it may hold `{"history": ..., "exclude": ...}`. `parameters` are the options of the pipeline's call
                that `PARAMETERS` names.

        Returns:
            one dict of `item_id`, `title`, `score` and `codes` per recommended item, in a list. Several histories get
            a list of such lists.

        Raises:
            ValueError: something is wrong with the request. The endpoint answers `{"error": ...}` with status 400.
        """
        if not isinstance(data, dict) or "inputs" not in data:
            raise ValueError("the request has no `inputs`; give a history, a list of item ids, oldest first.")
        parameters = data.get("parameters") or {}
        if not isinstance(parameters, dict):
            raise ValueError(f"`parameters` is {parameters!r}; give an object of {', '.join(PARAMETERS)}.")
        unknown = sorted(parameters.keys() - set(PARAMETERS))
        if unknown:
            raise ValueError(f"`parameters` names {unknown[0]!r}; choose among {', '.join(PARAMETERS)}.")
        return self.recommend(data["inputs"], **parameters)
