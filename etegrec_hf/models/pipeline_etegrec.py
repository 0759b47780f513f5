"""The pipeline `sequential-recommendation`: from histories of item ids to items with titles and scores."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields

import torch
from transformers import Pipeline

from .search_options import SearchOptions, SearchSettings, check_count
from .tokenization_etegrec import as_list, is_list_like

CHOICES = {"unknown": ("error", "skip"), "on_empty": ("error", "empty", "popular")}  # the first is the default
OPTIONS = {option.name for option in fields(SearchOptions)}
PREPROCESSED = ("exclude", "exclude_history", *CHOICES)


class SequentialRecommendationPipeline(Pipeline):
    """Recommends the next items: `pipeline("sequential-recommendation", model=..., trust_remote_code=True)`.

    Args:
        model ([`ETEGRecForConditionalGeneration`]): a trained recommender.
        tokenizer ([`ETEGRecTokenizer`]): the tokenizer from the same folder.
        batch_size (`int`, *optional*, defaults to 256): histories of a list or stream that are decoded together.
        **kwargs: further arguments of transformers' `Pipeline`, and defaults for the arguments of a call.

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
                of histories (a generator, a column of a dataset). An iterable is streamed, and the results are an
                iterator too. Arrays, series and tuples count as lists. Sets have no order and are refused.
                A history may also be a `dict` with `history` and `exclude`, a list of item ids for this history alone.
                `[]` is a list of no histories, and `{"history": []}` is one history without items.
            top_k (`int`, *optional*, defaults to 10): items per history.
            num_beams (`int`, *optional*): number of prefixes that each level keeps; by default the model's own
                setting, or `top_k` if that is larger.
            exclude (`list[str]` or `list[list[str]]`, *optional*): item ids that no history gets, or a list of item
                ids per history.
            allowed (`list[str]`, *optional*): item ids to choose from. A history that may get none of them gets an
                empty list.
            exclude_history (`bool`, *optional*): whether to leave out items of the history; by default the model's own
                setting.
            rerank_weight, transition_weight (`float`, *optional*): weight of preference re-ranking and share of
                transition votes, as in `model.recommend`; by default the model's own settings.
            unknown (`str`, *optional*, defaults to `"error"`): `"skip"` leaves out ids that aren't in the catalogue;
                `"error"` raises.
            on_empty (`str`, *optional*, defaults to `"error"`): result for a history without an item of the catalogue:
                `"empty"` gives an empty list, `"popular"` the items that occur most often in training; `"error"`
                raises.
            batch_size, num_workers (`int`, *optional*): as in every pipeline.

        Returns:
            for each history, in order, a list of at most `top_k` dictionaries, best first, with the keys `item_id`,
            `title` (if it is known), `score` (as in `model.recommend`) and `codes` (token strings). Items from
            `on_empty="popular"` have the logarithm of their share of training interactions as `score`, and also
            `"popular": True`.

        Raises:
            ValueError: an unknown item, or a history without items; among several histories, the error begins with
                the number of the history, from 0.
            ValueError: anything that isn't a history.
            ValueError: the errors of `recommend`.
        """
        for name, least in (("batch_size", 1), ("num_workers", 0)):
            if kwargs.get(name) is not None:
                check_count(name, kwargs[name], least)
                kwargs[name] = int(kwargs[name])  # torch refuses integers of numpy
        if isinstance(histories, dict):
            return super().__call__(_request(histories), **kwargs)
        if is_list_like(histories):
            histories = as_list(histories)
        elif isinstance(histories, (str, bytes, set, frozenset)) or not (
            hasattr(histories, "__getitem__") or isinstance(histories, Iterable)
        ):
            return _request(histories)  # raises an error that says what is wrong
        exclude = as_list(kwargs["exclude"]) if _is_ids(kwargs.get("exclude")) else []
        by_history = any(map(_is_ids, exclude))
        if not isinstance(histories, list):
            if by_history:
                raise ValueError(
                    "`exclude` holds one list per history, but the histories are a stream; "
                    "stream dictionaries of `history` and `exclude` instead."
                )
            stream = (_request(history, number) for number, history in enumerate(_stream(histories)))
            return super().__call__(stream, **kwargs)
        if histories and not any(_is_ids(entry) or isinstance(entry, dict) for entry in histories):
            if by_history:
                raise ValueError(
                    "`exclude` holds one list per history, but there is only one history; give a list of item ids."
                )
            return super().__call__(_request(histories), **kwargs)
        requests = [_request(history, number) for number, history in enumerate(histories)]
        if by_history:
            if len(exclude) != len(requests):
                lists, of = len(exclude), "history" if len(requests) == 1 else "histories"
                raise ValueError(
                    f"`exclude` holds {lists} list{'s' * (lists != 1)} for {len(requests)} {of}; give one list per "
                    "history."
                )
            for request, ids in zip(requests, exclude):
                with _of_history(request["number"]):
                    request["exclude"] += _ids("exclude", ids)
            kwargs = {**kwargs, "exclude": None}
        return super().__call__(requests, **kwargs) if requests else []

    def _sanitize_parameters(self, **kwargs):
        defaults = {**getattr(self, "_preprocess_params", {}), **getattr(self, "_forward_params", {})}
        names = {*PREPROCESSED, *OPTIONS, "allowed"}
        unknown_names = kwargs.keys() - names
        if unknown_names:
            raise TypeError(f"unknown arguments {sorted(unknown_names)}; choose among {', '.join(sorted(names))}.")
        wanted = {**defaults, **kwargs}
        SearchOptions(**{name: wanted[name] for name in wanted.keys() & OPTIONS})  # raises for wrong values
        for name, choices in CHOICES.items():
            if wanted.setdefault(name, choices[0]) not in choices:
                raise ValueError(f"`{name}` is {wanted[name]!r}; choose {' or '.join(map(repr, choices))}.")
        if wanted["on_empty"] == "popular" and not self.model.catalogue.item_counts.any():
            raise ValueError(
                "`on_empty` is 'popular', but this model holds no counts of its items; finetune it, set counts with "
                "`model.catalogue.set_item_counts`, or pass 'empty' and fill the empty lists yourself."
            )
        for name in ("exclude", "allowed"):
            if kwargs.get(name) is not None:
                kwargs[name] = self.tokenizer.index_of(_ids(name, kwargs[name]), wanted["unknown"])
        preprocess = {name: kwargs.pop(name) for name in PREPROCESSED if name in kwargs}
        return preprocess, kwargs | {"on_empty": wanted["on_empty"]}, {}

    def preprocess(self, request, exclude=None, exclude_history=None, unknown="error", on_empty="error"):
        with _of_history(request["number"]):
            history = self.tokenizer.index_of(request["history"], unknown)
            if not history and on_empty == "error":
                raise ValueError(
                    "the history holds no item of the catalogue; give one, or pass on_empty='empty' for an empty list "
                    "or on_empty='popular' for popular items."
                )
            if exclude_history is None:
                exclude_history = SearchSettings.of(self.model.config.search_settings).exclude_history
            excluded = self.tokenizer.index_of(request["exclude"], unknown)
            excluded += history if exclude_history else []
            padding = [[0] * self.tokenizer.code_length]
            encoded = {"input_ids": padding, "attention_mask": padding}
            if history:
                encoded = self.tokenizer([request["history"]], unknown=unknown)
        items = [0, *excluded, *([] if exclude is None else exclude)]  # padding first, so that no row is empty
        return {name: torch.tensor(rows) for name, rows in {**encoded, "exclude": [items]}.items()}

    def _forward(self, model_inputs, allowed=None, on_empty="error", **kwargs):
        mask = model_inputs["attention_mask"]
        items = torch.zeros(len(mask), kwargs.get("top_k", SearchOptions.top_k), dtype=torch.long, device=mask.device)
        scores = torch.zeros(items.shape, device=mask.device)
        is_popular = ~mask.any(1) & (on_empty == "popular")
        is_asked = mask.any(1)
        if allowed is not None:
            allowed = torch.tensor(allowed, dtype=torch.long, device=mask.device)
            is_asked &= torch.isin(allowed, self.model.catalogue.trie.leaf_items).any()
        if is_popular.any():
            found = self.model.catalogue.most_popular(items.shape[1], model_inputs["exclude"][is_popular], allowed)
            items[is_popular], scores[is_popular] = found
        if is_asked.any():
            asked = {name: rows[is_asked] for name, rows in model_inputs.items()}
            if not asked["exclude"].any():
                asked["exclude"] = None
            # preprocess put items of the history among the excluded ones if they are to be left out
            items[is_asked], found = self.search(**asked, allowed=allowed, exclude_history=False, **kwargs)
            scores[is_asked] = found.float()
        # [batch, top_k] twice, and [batch, 1]: the pipeline splits them into rows
        return {"items": items, "scores": scores, "is_popular": is_popular.unsqueeze(1)}

    def search(self, **asked) -> tuple[torch.LongTensor, torch.FloatTensor]:
        """Returns item indices and scores `[batch, top_k]`, as `model.recommend` does with the same arguments."""
        return self.model.recommend(**asked)

    def postprocess(self, model_outputs):
        items, scores = (model_outputs[name][0].tolist() for name in ("items", "scores"))
        marks = {"popular": True} if model_outputs["is_popular"].item() else {}
        return [self._shown(index, score) | marks for index, score in zip(items, scores) if index]

    def _shown(self, index: int, score: float) -> dict:
        item_id = self.tokenizer.item_ids[index - 1]
        title = self.tokenizer.item_titles.get(item_id)
        codes = self.tokenizer.convert_ids_to_tokens(self.tokenizer.item_tokens[index].tolist())
        return {"item_id": item_id, **({"title": title} if title else {}), "score": score, "codes": codes}


@contextmanager
def _of_history(number: int | None) -> Iterator[None]:
    """Begins errors with the number of the history that they are about."""
    try:
        yield
    except ValueError as error:
        if number is None:
            raise
        raise ValueError(f"history {number}: {error}") from error


def _is_ids(values) -> bool:
    return is_list_like(values) or isinstance(values, (set, frozenset))


def _stream(histories):
    """Returns an iterable of histories, given an iterable or a dataset with a length and rows by number."""
    return histories if isinstance(histories, Iterable) else (histories[row] for row in range(len(histories)))


def _ids(name: str, values) -> list:
    """Returns item ids as a list, given a list, tuple, set, array or series."""
    if not _is_ids(values):
        raise ValueError(f"`{name}` is {values!r}; give a list of item ids, also for a single item.")
    ids = as_list(values)
    for item_id in ids:
        if _is_ids(item_id):
            shared = ", the same for all histories" if name == "allowed" else ""
            raise ValueError(f"`{name}` holds {item_id!r}, which isn't an item id; give a list of item ids{shared}.")
    return ids


def _request(history, number: int | None = None) -> dict:
    """Returns one history with its excluded items and its number among several, after checks."""
    with _of_history(number):
        entries = history if isinstance(history, dict) else {"history": history}
        if "history" not in entries or entries.keys() - {"history", "exclude"}:
            raise ValueError(
                f"a history is a dict with the keys {sorted(entries)}; give `history`, and optionally `exclude`."
            )
        if not is_list_like(entries["history"]):
            reason = "has no order" if _is_ids(entries["history"]) else "isn't a history"
            raise ValueError(
                f"{entries['history']!r} {reason}; give a list of item ids, oldest first, also for a single item."
            )
        exclude = entries.get("exclude")
        ids = {"history": entries["history"], "exclude": [] if exclude is None else exclude}
        return {"number": number, **{name: _ids(name, values) for name, values in ids.items()}}
