"""The recommender of an exported folder: from item ids to recommended items with titles and scores."""

from pathlib import Path

import numpy as np

from .folder import Export
from .onnx_network import OnnxNetwork
from .requests import Catalogue, Request, RequestOptions, allowed_of, requests_of
from .search import Network, Users, Weights, beam_search
from .trie import Allowed, Floats, Numbers

MAX_BATCH_TOKENS = 4096  # decoded together, few enough for the caches of a processor
OWN = {"num_beams": 20, "exclude_history": False, "rerank_weight": 0.0, "transition_weight": 0.0}  # as SearchSettings


class ExportedRecommender:
    """Recommends with the tables of an export and its two networks, whatever runs the networks.

    Args:
        export ([`Export`]): the export.
        network ([`Network`]): the networks of the export.
    """

    def __init__(self, export: Export, network: Network):
        self.settings, self.tables, self.network = export.settings, export.tables, network
        _ = self.tables.trie, self.tables.leaf_of_item  # made here, not in the first call
        self.catalogue = Catalogue(self.settings["item_ids"], self.settings["item_titles"])

    def recommend(self, histories, exclude=None, allowed=None, **options) -> list:
        """Recommends for one history or for many.

        Args:
            histories: one history (`list[str]` of item ids, oldest first) or a list of histories. A history may also
                be a `dict` with `history` and `exclude`, a list of item ids for this history alone.
            exclude (`list[str]` or `list[list[str]]`, *optional*): item ids that no history gets, or a list of item
                ids per history.
            allowed (`list[str]`, *optional*): item ids to choose from.
            **options: fields of [`RequestOptions`].

        Returns:
            for each history, in order, a list of at most `top_k` dictionaries, best first; for one history, its list
            alone. The keys are `item_id`, `title` (if it is known), `score` and `codes` (token strings). Items from
            `on_empty="popular"` also have `popular`. Items and scores are those of the pipeline.

        Raises:
            ValueError: anything that isn't a history.
            ValueError: an unknown item, or a history without items; among several histories, the error begins with
                the number of the history, from 0.
            ValueError: options that [`RequestOptions`] refuses.
            ValueError: weights or popular items for which the model lacks the tables.
            ValueError: scores that are NaN.
            TypeError: an unknown option.
        """
        wanted = RequestOptions.of(options)
        requests, is_one = requests_of(histories, exclude, self.catalogue, wanted)
        chosen = None if allowed is None else np.array(allowed_of(allowed, self.catalogue, wanted), np.int64)
        items, scores = self.rank(requests, chosen, wanted)
        answers = [self._shown(*row) for row in zip(items.tolist(), scores.tolist())]
        if wanted.on_empty == "popular":
            for place, request in enumerate(requests):
                if not request.history:
                    answers[place] = self._popular(request, wanted.top_k, chosen)
        return answers[0] if is_one else answers

    def rank(
        self, requests: list[Request], allowed: Numbers | None, options: RequestOptions
    ) -> tuple[Numbers, Floats]:
        """Recommends item indices.

        Args:
            requests (`list[Request]`): histories, and the items that each user must not get.
            allowed (array of shape `(n,)`, *optional*): item indices to choose from.
            options ([`RequestOptions`]): options of the search.

        Returns:
            item indices and scores, both of shape `(requests, top_k)`, best first. Shorter lists, and all those of
            empty histories, are padded with index 0 and score -inf.

        Raises:
            ValueError: weights for which the model lacks the tables.
            ValueError: scores that are NaN.
        """
        weights, exclude_history = self._settings(options)
        if exclude_history:
            requests = [Request(request.history, request.excluded + request.history) for request in requests]
        items = np.zeros((len(requests), options.top_k), np.int64)
        scores = np.full(items.shape, -np.inf, np.float32)
        searched = None if allowed is None else Allowed(self.tables.trie, allowed)
        if searched is None or searched.before[-1]:
            asked = [place for place, request in enumerate(requests) if request.history]
            for places, found, found_scores in self._searched(requests, asked, searched, weights):
                width = min(found.shape[1], options.top_k)
                items[places, :width], scores[places, :width] = found[:, :width], found_scores[:, :width]
        return items, scores

    def _settings(self, options: RequestOptions) -> tuple[Weights, bool]:
        """Returns the settings of a search: those given, then the model's own, then the defaults."""
        own = OWN | self.settings["search_settings"]
        settings = {name: own[name] if getattr(options, name) is None else getattr(options, name) for name in OWN}
        if options.num_beams is None:
            settings["num_beams"] = max(settings["num_beams"], options.top_k)
        needs = {
            "rerank_weight": ("directions", "embeddings to rank by"),
            "transition_weight": ("transition_items", "transitions"),
        }
        for name, (table, called) in needs.items():
            if settings[name] and getattr(self.tables, table) is None:
                raise ValueError(
                    f"`{name}` is {settings[name]}, but the exported model holds no {called}; give no weight, or 0 if "
                    "it is the model's own setting."
                )
        if options.on_empty == "popular" and self.tables.item_counts is None:
            raise ValueError(
                "`on_empty` is 'popular', but the exported model holds no counts of its items; finetune it before the "
                "export, or pass 'empty' and fill the empty lists yourself."
            )
        exclude_history = settings.pop("exclude_history")
        return Weights(**settings), exclude_history

    def _searched(self, requests: list[Request], asked: list[int], allowed: Allowed | None, weights: Weights):
        """Yields the places of requests with histories of similar length, and the items and scores found for them."""
        longest = self.settings["max_history"]
        read = {place: requests[place].history[-longest:] for place in asked}
        per_item = self.settings["positions_per_item"]
        order, start = sorted(asked, key=lambda place: -len(read[place])), 0
        while start < len(order):
            size = max(1, MAX_BATCH_TOKENS // (len(read[order[start]]) * per_item + weights.num_beams))
            places = order[start : start + size]
            excluded = _padded([requests[place].excluded for place in places])
            users = Users(_padded([read[place] for place in places]), excluded, allowed)
            items, scores = beam_search(self.network, self.tables, users, weights)
            if np.isnan(scores).any():
                raise ValueError("the scores are NaN; the model's weights are damaged: export an earlier checkpoint.")
            yield places, items, scores
            start += size

    def _popular(self, request: Request, top_k: int, allowed: Numbers | None) -> list[dict]:
        """Returns the items that occur most often in training, as entries of a list."""
        counts = self.tables.item_counts
        assert counts is not None
        can_come = np.zeros(len(counts), bool)
        leaf_items = self.tables.trie.leaf_items
        can_come[leaf_items if allowed is None else leaf_items[np.isin(leaf_items, allowed)]] = True
        can_come[request.excluded] = False
        items = np.argsort(-np.where(can_come, counts, 0), kind="stable")[:top_k]
        items = items[can_come[items] & (counts[items] > 0)]
        shares = np.log(counts[items] / counts.sum())
        return [shown | {"popular": True} for shown in self._shown(items.tolist(), shares.tolist())]

    def _shown(self, items: list[int], scores: list[float]) -> list[dict]:
        return [self._entry(index, score) for index, score in zip(items, scores) if index]

    def _entry(self, index: int, score: float) -> dict:
        item_id = self.catalogue.item_ids[index - 1]
        title = self.catalogue.item_titles.get(item_id)
        codes = [f"<{chr(ord('a') + level)}_{code}>" for level, code in enumerate(self.tables.codes[index].tolist())]
        return {"item_id": item_id, **({"title": title} if title else {}), "score": score, "codes": codes}


class OnnxRecommender(ExportedRecommender):
    """Recommends from a folder that `etegrec export --format onnx` wrote, with numpy and ONNX Runtime alone.

    Several threads may call it at once.

    Args:
        folder (`str` or `Path`): the folder.
        threads (`int`, *optional*): processor threads per call; by default as many as there are cores.

    Raises:
        FileNotFoundError: no such folder, or a file is missing.
        ValueError: `threads` below 1.
        ValueError: a file is damaged.
        ValueError: another format version.
        ImportError: onnxruntime is missing.

    Example:
        ```python
        from etegrec_hf.runtime import OnnxRecommender

        recommender = OnnxRecommender("runs/exported")
        recommender.recommend(["i1", "i2"], top_k=5, exclude=["i3"])
        ```
    """

    def __init__(self, folder: str | Path, threads: int | None = None):
        if threads is not None and threads < 1:
            raise ValueError(f"`threads` is {threads}; give 1 or more.")
        export = Export.read(folder)
        super().__init__(export, OnnxNetwork(export.folder, threads))


def _padded(rows: list[list[int]]) -> Numbers:
    """Returns lists of item indices as an array of at least one column; shorter lists are padded right with 0."""
    padded = np.zeros((len(rows), max(1, *map(len, rows))), np.int64)
    for row, values in zip(padded, rows):
        row[: len(values)] = values
    return padded
