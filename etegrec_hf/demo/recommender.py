"""The recommender of the demo's page, which answers in item ids and probabilities."""

import math
import random
from dataclasses import dataclass

import numpy as np
import torch

from ..data.item_ids import AS_JSON, read_item_ids
from ..data.prepared import PreparedDataset, Split
from ..hub.dataset_folder import local_dataset
from ..hub.item_finder import ItemFinder, SimilarItems
from ..hub.model_folder import load_recommender
from ..models.beam_search import Beam
from ..models.modeling_etegrec import ETEGRecForConditionalGeneration
from ..models.search import reading_of, sample, search
from ..models.search_options import SamplingOptions, SearchOptions, SearchSettings
from ..models.tokenization_etegrec import ETEGRecTokenizer

RANDOM_LENGTHS = (3, 8)  # shortest and longest history of random items
EXAMPLE_LENGTH, EXAMPLE_USERS = 4, 100  # preferred length of the example; users it is chosen from


@dataclass(frozen=True)
class KeptPrefix:
    """One prefix that a level of the beam search kept.

    Args:
        token (`str`): token string of the last code.
        parent (`int`): place of the parent among the prefixes of the level before (0 at the first level).
        probability (`float`): probability of the whole prefix.
        n_items (`int`): number of items of the catalogue below the prefix.
        item_id (`str`, *optional*): id of the item, at the last level.
    """

    token: str
    parent: int
    probability: float
    n_items: int
    item_id: str | None


@dataclass(frozen=True)
class Recommendations:
    """A list of items, and the beam that led to it.

    Args:
        item_ids (`list[str]`): item ids, in the order of the list.
        scores (`list[float]`): log-probabilities of the items, plus the part of re-ranking if `is_reranked`.
        beam (`list[list[KeptPrefix]]`): the prefixes that were kept, level by level, with the model's own
            probabilities, without transition votes.
        is_reranked (`bool`): whether the list was re-ranked by preferences.
    """

    item_ids: list[str]
    scores: list[float]
    beam: list[list[KeptPrefix]]
    is_reranked: bool


@dataclass(frozen=True)
class RandomHistory:
    """A history to try.

    Args:
        item_ids (`list[str]`): item ids, oldest first.
        user_id (`str`, *optional*): id of the user; None if the items are random.
        next_id (`str`, *optional*): id of the item that this user took next.
    """

    item_ids: list[str]
    user_id: str | None = None
    next_id: str | None = None


class DemoRecommender:
    """A model, its tokenizer, and optionally the dataset that it was trained on.

    Args:
        model ([`ETEGRecForConditionalGeneration`]): a trained recommender in eval mode.
        tokenizer ([`ETEGRecTokenizer`]): the tokenizer from the same folder.
        data ([`PreparedDataset`], *optional*): the dataset, for users of the test split, popular items, and titles
            that the tokenizer lacks.

    Raises:
        ValueError: a dataset with items that the model lacks.
    """

    def __init__(
        self,
        model: ETEGRecForConditionalGeneration,
        tokenizer: ETEGRecTokenizer,
        data: PreparedDataset | None = None,
    ):
        self.model, self.tokenizer = model, tokenizer
        self.data = None if data is None else data.with_items(tokenizer.item_ids)
        self.titles = ({} if data is None else data.title_of) | tokenizer.item_titles
        self._indices = dict(zip(tokenizer.item_ids, range(1, len(tokenizer.item_ids) + 1)))
        self._finder = ItemFinder(model, tokenizer, self.titles)

    @classmethod
    def load(cls, model: str, data: str | None = None) -> "DemoRecommender":
        """Loads a model and optionally a prepared dataset, each from a folder or a Hub id.

        Raises:
            FileNotFoundError: no such folder, or no such repository on the Hub.
            ConnectionError: the Hub can't be reached.
            ValueError: the errors of [`load_recommender`] and [`PreparedDataset.load`].
        """
        prepared = None
        if data is not None:
            prepared = PreparedDataset.load(local_dataset(data, ("train", "test")), ("train", "test"))
        return cls(*load_recommender(model), prepared)

    @property
    def settings(self) -> SearchSettings:
        """The model's own search settings."""
        return SearchOptions(top_k=1).for_model(self.model)

    def label(self, item_id: str) -> str:
        """Returns the title of an item, or its id if no title is known."""
        return self.titles.get(item_id, item_id)

    def choices(self, item_ids: list[str]) -> list[tuple[str, str]]:
        """Returns pairs of label and id of the distinct items; equal labels get the id added."""
        distinct = list(dict.fromkeys(item_ids))
        labels = [self.label(item_id) for item_id in distinct]
        return [
            (f"{label} ({item_id})" if labels.count(label) > 1 else label, item_id)
            for label, item_id in zip(labels, distinct)
        ]

    def codes(self, item_id: str) -> list[str]:
        """Returns the token strings of an item."""
        return self.tokenizer.convert_ids_to_tokens(self.tokenizer.item_tokens[self._indices[item_id]].tolist())

    def find(self, query: str, limit: int) -> tuple[list[str], int]:
        """Returns items by words of title and id, as [`ItemFinder.find`] does."""
        return self._finder.find(query, limit)

    def near(self, query: str, limit: int) -> list[str]:
        """Returns items with words similar to those of a query, as [`ItemFinder.near`] does."""
        return self._finder.near(query, limit)

    def read_history(self, text: str) -> list[str]:
        """Returns the item ids in a text, as [`read_item_ids`] does.

        Raises:
            ValueError: ids that the model doesn't know; the error names all of them.
        """
        item_ids = read_item_ids(text, self._indices)
        self.check_known(item_ids, f" Note that {AS_JSON}.")
        return item_ids

    def check_known(self, item_ids: list[str], note: str = "") -> None:
        """Raises a `ValueError` that names all unknown items of a history, and ends with `note`."""
        unknown = [repr(item_id) for item_id in item_ids if item_id not in self._indices]
        if unknown:
            raise ValueError(
                f"The history names {', '.join(unknown)}, not in the catalogue of {len(self._indices)} items; "
                f"correct or remove them.{note}"
            )

    def example_history(self) -> RandomHistory:
        """Returns the same short history each time: of a user of the test split, or of the catalogue's first items."""
        if self.data is not None and len(self.data.test):
            lengths = np.diff(self.data.test.offsets[: EXAMPLE_USERS + 1]) - 1
            return self._history_in(self.data.test, int(np.abs(lengths - EXAMPLE_LENGTH).argmin()))
        return RandomHistory(self.tokenizer.item_ids[:EXAMPLE_LENGTH])

    def _history_in(self, split: Split, row: int) -> RandomHistory:
        item_ids = self.tokenizer.ids_of(split.row(row))
        return RandomHistory(item_ids[:-1], split.user_ids[row], item_ids[-1])

    def random_history(self) -> RandomHistory:
        """Returns history and next item of a random user of the test split; without a dataset, random items."""
        if self.data is not None and len(self.data.test):
            return self._history_in(self.data.test, random.randrange(len(self.data.test)))
        known = self.tokenizer.item_ids
        return RandomHistory(random.sample(known, min(len(known), random.randint(*RANDOM_LENGTHS))))

    def popular(self, limit: int, exclude: list[str]) -> tuple[list[str], list[int]]:
        """Returns the items that are most frequent in training, and their counts; ties are in order of item index.

        Removed items are left out.

        Raises:
            ValueError: no dataset was given, and the model holds no counts.
        """
        counts = self.model.catalogue.item_counts.cpu().numpy().copy() if self.data is None else self.data.item_counts
        if not counts.any():
            raise ValueError(
                "The history is empty: add an item to it. (This model holds no counts of its items; with `--data`, "
                "popular items would be shown.)"
            )
        counts[[0, *self.tokenizer.index_of(exclude)]] = 0
        counts[self.model.catalogue.is_removed.cpu().numpy()] = 0
        best = np.argsort(-counts, kind="stable")[:limit]
        best = best[counts[best] > 0]
        return self.tokenizer.ids_of(best), counts[best].tolist()

    def recommend(
        self,
        history: list[str],
        top_k: int,
        num_beams: int,
        temperature: float = 0.0,
        exclude: list[str] | None = None,
        exclude_history: bool | None = None,
    ) -> Recommendations:
        """Returns the most probable items, or a random draw of items, with the beam that led to them.

        The weights of re-ranking and of votes are the model's own. A draw uses neither.

        Args:
            history (`list[str]`): item ids, oldest first.
            top_k (`int`): length of the list.
            num_beams (`int`): number of prefixes that each level keeps, at least `top_k`.
            temperature (`float`, *optional*, defaults to 0): 0 for the most probable items, as `recommend` of the
                model finds them. Above 0, items are drawn without replacement as in `sample_items`, and probabilities
                are those of the distribution that is drawn from.
            exclude (`list[str]`, *optional*): item ids to leave out.
            exclude_history (`bool`, *optional*): whether to leave out items of the history; by default the model's own
                setting.

        Raises:
            ValueError: an unknown item.
            ValueError: an empty history.
            ValueError: a beam that is narrower than the list.
        """
        settings = SearchOptions(top_k, num_beams, exclude_history).for_model(self.model)
        batch = self.tokenizer([history], return_tensors="pt").to(self.model.device)
        left_out = [
            *(exclude or []),
            *(history if settings.exclude_history else []),
        ]  # all items, not only those that are read
        excluded = [0, *self.tokenizer.index_of(left_out)]
        rows = torch.tensor([excluded], device=self.model.device) if len(excluded) > 1 else None  # 0 isn't an item
        reading = reading_of(self.model, **batch)
        if temperature == 0:
            beam = search(reading, SearchOptions(top_k, num_beams, exclude_history=False), rows)
        else:
            beam = sample(reading, SamplingOptions(num_beams, temperature), rows).first(top_k)
        found = int((beam.items[0] > 0).sum())
        return Recommendations(
            self.tokenizer.ids_of(beam.items[0, :found]),
            beam.scores[0, :found].tolist(),
            self._read_beam(beam),
            is_reranked=temperature == 0 and settings.rerank_weight > 0,
        )

    def _read_beam(self, found: Beam) -> list[list[KeptPrefix]]:
        """Returns the prefixes of one user as token strings, without empty places of the beam."""
        trie, beam = self.model.catalogue.trie, []
        places: dict[int, int] = {0: 0}  # from a beam of the level before to its place among those shown
        for number, level in enumerate(found.levels):
            exists = (level.node[0] >= 0).nonzero().squeeze(1)
            node = level.node[0, exists]
            token_ids = trie.layout.token_id(number, trie.last_code(node)).tolist()
            beam.append(
                [
                    KeptPrefix(
                        token,
                        places[parent],
                        math.exp(score),
                        count,
                        self.tokenizer.item_ids[item - 1] if item else None,
                    )
                    for token, parent, score, count, item in zip(
                        self.tokenizer.convert_ids_to_tokens(token_ids),
                        level.parent[0, exists].tolist(),
                        level.log_p[0, exists].tolist(),
                        trie.item_count(node).tolist(),
                        trie.item(node).tolist(),
                    )
                ]
            )
            places = {beam_place: place for place, beam_place in enumerate(exists.tolist())}
        return beam

    def similar(self, item_id: str, limit: int) -> SimilarItems:
        """Returns the first `limit` items that share the longest prefix of codes with an item; removed ones never."""
        return self._finder.similar(item_id, limit)
