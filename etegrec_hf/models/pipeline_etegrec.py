"""Histories of item ids in, recommended items with titles and scores out."""

from collections.abc import Iterable
from dataclasses import fields

import torch
from transformers import Pipeline

from .search import SearchOptions


class SequentialRecommendationPipeline(Pipeline):
    """Recommends the next items: `pipeline("sequential-recommendation", model=..., trust_remote_code=True)`.

    Args:
        model ([`ETEGRecForConditionalGeneration`]): a trained recommender.
        tokenizer ([`ETEGRecTokenizer`]): of the same folder.
        batch_size (`int`, *optional*, defaults to 256): histories of a list or stream that are decoded together.
        **kwargs: further arguments of transformers' `Pipeline`, and defaults for those of a call.

    Raises:
        ValueError: a tokenizer of another model.
    """

    _load_tokenizer = True

    def __init__(self, *args, batch_size: int = 256, **kwargs):
        if kwargs.get("tokenizer") is None:
            raise ValueError("`tokenizer` is missing; give the ETEGRecTokenizer of the model's folder.")
        super().__init__(*args, batch_size=batch_size, **kwargs)
        self.model.catalogue.check_tokenizer(self.tokenizer)

    def __call__(self, histories, **kwargs):
        """Recommends for one history or for many.

        Args:
            histories: one history (`list[str]` of item ids, oldest first), a list of histories, or any other iterable
                of histories (a generator, a column of a dataset), which is streamed: the results are an iterator then.
                Arrays, series and tuples count as lists.
                A history may also be a `dict` of `history` and `exclude`, a list of item ids for this history alone.
            top_k (`int`, *optional*, defaults to 10): items a history.
            num_beams (`int`, *optional*): prefixes kept a level; by default 20, or `top_k` where that is more.
            exclude (`list[str]` or `list[list[str]]`, *optional*): item ids that nobody gets, or a list for each
                history of a list.
            allowed (`list[str]`, *optional*): item ids to choose from.
            exclude_history (`bool`, *optional*, defaults to `False`): whether nobody gets an item of their history.
            rerank_weight, transition_weight (`float`, *optional*, default to 0.0): weight of preference re-ranking and
                share of transition votes, as in `model.recommend`.
            unknown (`str`, *optional*, defaults to `"error"`): `"skip"` passes over ids that are not in the catalogue.
            batch_size, num_workers (`int`, *optional*): as in every pipeline.

        Returns:
            for each history, in order, a list of at most `top_k` dictionaries, best first: `item_id`, `title` (where
            it is known), `score` (log-probability, to which `rerank_weight` adds its part) and `codes` (token
            strings).

        Raises:
            ValueError: an unknown item, a history without items, or what `recommend` raises.
        """
        if isinstance(histories, dict):
            return super().__call__(_request(histories), **kwargs)
        if isinstance(histories, str) or (
            not hasattr(histories, "__getitem__") and not isinstance(histories, Iterable)
        ):
            raise ValueError(f"{histories!r} is no history; give a list of item ids, or a list of such lists.")
        if isinstance(histories, tuple) or hasattr(histories, "tolist"):  # numpy and pandas have it
            histories = _as_list(histories)
        exclude = kwargs.get("exclude")
        exclude = [] if exclude is None or isinstance(exclude, str) else _as_list(exclude)
        by_history = any(_is_sequence(entry) for entry in exclude)
        if not isinstance(histories, list):
            if by_history:
                raise ValueError(
                    "`exclude` holds a list for each history of a list, and the histories are a stream; "
                    "stream dictionaries of `history` and `exclude`."
                )
            return super().__call__((_request(history) for history in _stream(histories)), **kwargs)
        if histories and not _is_sequence(histories[0]):
            if by_history:
                raise ValueError("`exclude` holds a list for each history, and there is one history; give its ids.")
            return super().__call__(_request(histories), **kwargs)
        requests = [_request(history) for history in histories]
        if by_history:
            if len(exclude) != len(requests):
                raise ValueError(f"`exclude` holds {len(exclude)} lists for {len(requests)} histories; give one each.")
            for request, ids in zip(requests, exclude):
                request["exclude"] += _ids("exclude", ids)
            kwargs = {**kwargs, "exclude": None}
        return super().__call__(requests, **kwargs) if requests else []

    def _sanitize_parameters(self, **kwargs):
        names = ("exclude", "exclude_history", "unknown")
        preprocess = {name: kwargs.pop(name) for name in names if name in kwargs}
        if preprocess.get("exclude") is not None:
            preprocess["exclude"] = _ids("exclude", preprocess["exclude"])
        if kwargs.get("allowed") is not None:
            defaults = getattr(self, "_preprocess_params", {})
            unknown = {**defaults, **preprocess}.get("unknown", "error")
            allowed = self.tokenizer.index_of(_ids("allowed", kwargs["allowed"]), unknown)
            kwargs["allowed"] = torch.tensor(allowed, dtype=torch.long)
        unknown_names = kwargs.keys() - {"allowed", *(option.name for option in fields(SearchOptions))}
        if unknown_names:
            raise TypeError(f"unknown arguments {sorted(unknown_names)}; see {type(self).__name__}.__call__.")
        return preprocess, kwargs, {}

    def preprocess(self, request, exclude=None, exclude_history=False, unknown="error"):
        excluded = [*(exclude or []), *request["exclude"], *(request["history"] if exclude_history else [])]
        items = [0, *self.tokenizer.index_of(excluded, unknown)]  # 0 is no item, and a row must not be empty
        encoded = self.tokenizer([request["history"]], unknown=unknown)
        return {name: torch.tensor(rows) for name, rows in {**encoded, "exclude": [items]}.items()}

    def _forward(self, model_inputs, **kwargs):
        if not model_inputs["exclude"].any():
            model_inputs = {**model_inputs, "exclude": None}
        items, scores = self.model.recommend(**model_inputs, **kwargs)
        return {"items": items, "scores": scores}  # [batch, top_k], which the pipeline takes apart by row

    def postprocess(self, model_outputs):
        items, scores = (model_outputs[name][0].tolist() for name in ("items", "scores"))
        return [self._shown(index, score) for index, score in zip(items, scores) if index]

    def _shown(self, index: int, score: float) -> dict:
        item_id = self.tokenizer.item_ids[index - 1]
        title = self.tokenizer.item_titles.get(item_id)
        codes = self.tokenizer.convert_ids_to_tokens(self.tokenizer.item_tokens[index].tolist())
        return {"item_id": item_id, **({"title": title} if title else {}), "score": score, "codes": codes}


def _is_sequence(value) -> bool:
    return not isinstance(value, str) and (isinstance(value, (list, tuple, set, dict)) or hasattr(value, "tolist"))


def _as_list(values) -> list:
    return values.tolist() if hasattr(values, "tolist") else list(values)


def _stream(histories):
    """Anything that can be gone through: an iterable, or a dataset with a length and rows by number."""
    return histories if isinstance(histories, Iterable) else (histories[row] for row in range(len(histories)))


def _ids(name: str, values) -> list:
    """Item ids as a list, from a list, tuple, set, array or series."""
    if not _is_sequence(values) or isinstance(values, dict):
        raise ValueError(f"`{name}` is {values!r}; give a list of item ids, also for a single item.")
    ids = _as_list(values)
    for item_id in ids:
        if _is_sequence(item_id):
            raise ValueError(f"`{name}` holds {item_id!r} where an item id belongs; give a list of item ids.")
    return ids


def _request(history) -> dict:
    """One history, with the items that it must not get."""
    if isinstance(history, dict):
        if "history" not in history or history.keys() - {"history", "exclude"}:
            raise ValueError(f"a history is a dict of {sorted(history)}; give `history`, and `exclude` if you like.")
        exclude = history.get("exclude")
        return {"history": _ids("history", history["history"]), "exclude": _ids("exclude", exclude or [])}
    if not _is_sequence(history):
        raise ValueError(f"{history!r} is no history; give a list of item ids, also for a single item.")
    return {"history": _ids("history", history), "exclude": []}
