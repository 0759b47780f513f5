"""What the demo's page asks of a model, in item ids and probabilities."""

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

RANDOM_LENGTHS = (3, 8)  # of histories of random items
EXAMPLE_LENGTH, EXAMPLE_USERS = 4, 100  # of the example's history at best, and among how many users it is chosen


@dataclass(frozen=True)
class KeptPrefix:
    """One prefix that a level of the beam search kept.

    Args:
        token (`str`): the token string of its last code.
        parent (`int`): its place among the prefixes of the level before (0 at the first level).
        probability (`float`): of the whole prefix.
        n_items (`int`): the catalogue's items below it.
        item_id (`str`, *optional*): the item, at the last level.
    """

    token: str
    parent: int
    probability: float
    n_items: int
    item_id: str | None


@dataclass(frozen=True)
class Recommendations:
    """A list, and the beam that found it.

    Args:
        item_ids (`list[str]`): in the list's order.
        scores (`list[float]`): their log-probabilities, to which re-ranking adds its part where `is_reranked`.
        beam (`list[list[KeptPrefix]]`): the prefixes that were kept, level by level, with the model's own
            probabilities, without transition votes.
        is_reranked (`bool`): whether the list was ranked again by preferences.
    """

    item_ids: list[str]
    scores: list[float]
    beam: list[list[KeptPrefix]]
    is_reranked: bool


@dataclass(frozen=True)
class RandomHistory:
    """A history to try.

    Args:
        item_ids (`list[str]`): oldest first.
        user_id (`str`, *optional*): whose it is; nobody's if its items are random.
        next_id (`str`, *optional*): the item that this user took next.
    """

    item_ids: list[str]
    user_id: str | None = None
    next_id: str | None = None


class DemoRecommender:
    """A model, its tokenizer, and maybe the data it was trained on.

    Args:
        model ([`ETEGRecForConditionalGeneration`]): a trained recommender in eval mode.
        tokenizer ([`ETEGRecTokenizer`]): the model's.
        data ([`PreparedDataset`], *optional*): for users of the test split and popular items, and for titles that the
            tokenizer lacks.

    Raises:
        ValueError: the dataset has items that the model lacks.
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
        """From a model's folder or Hub id, and a prepared dataset's.

        Raises:
            FileNotFoundError, ConnectionError, ValueError: as [`load_recommender`] and [`PreparedDataset.load`].
        """
        prepared = None
        if data is not None:
            prepared = PreparedDataset.load(local_dataset(data, ("train", "test")), ("train", "test"))
        return cls(*load_recommender(model), prepared)

    @property
    def settings(self) -> SearchSettings:
        """The model's own settings of a search."""
        return SearchOptions(top_k=1).for_model(self.model)

    def label(self, item_id: str) -> str:
        """The title, or the id where no title is known."""
        return self.titles.get(item_id, item_id)

    def choices(self, item_ids: list[str]) -> list[tuple[str, str]]:
        """(label, id) of each item, once; labels that would be alike have the id with them."""
        distinct = list(dict.fromkeys(item_ids))
        labels = [self.label(item_id) for item_id in distinct]
        return [
            (f"{label} ({item_id})" if labels.count(label) > 1 else label, item_id)
            for label, item_id in zip(labels, distinct)
        ]

    def codes(self, item_id: str) -> list[str]:
        """The item's token strings."""
        return self.tokenizer.convert_ids_to_tokens(self.tokenizer.item_tokens[self._indices[item_id]].tolist())

    def find(self, query: str, limit: int) -> tuple[list[str], int]:
        """Items by words of title and id, as [`ItemFinder.find`] finds them."""
        return self._finder.find(query, limit)

    def near(self, query: str, limit: int) -> list[str]:
        """Items with words near to those of a query, as [`ItemFinder.near`] finds them."""
        return self._finder.near(query, limit)

    def read_history(self, text: str) -> list[str]:
        """Item ids of a text, as [`read_item_ids`] reads them.

        Raises:
            ValueError: ids that the model doesn't know, all of which are named.
        """
        item_ids = read_item_ids(text, self._indices)
        unknown = [repr(item_id) for item_id in item_ids if item_id not in self._indices]
        if unknown:
            raise ValueError(
                f"The history names {', '.join(unknown)}, not in the catalogue of {len(self._indices)} items; "
                f"correct or remove them. Note that {AS_JSON}."
            )
        return item_ids

    def example_history(self) -> RandomHistory:
        """The same short history each time: of a user of the test split, or of the catalogue's first items."""
        if self.data is not None and len(self.data.test):
            lengths = np.diff(self.data.test.offsets[: EXAMPLE_USERS + 1]) - 1
            return self._history_in(self.data.test, int(np.abs(lengths - EXAMPLE_LENGTH).argmin()))
        return RandomHistory(self.tokenizer.item_ids[:EXAMPLE_LENGTH])

    def _history_in(self, split: Split, row: int) -> RandomHistory:
        item_ids = self.tokenizer.ids_of(split.row(row))
        return RandomHistory(item_ids[:-1], split.user_ids[row], item_ids[-1])

    def random_history(self) -> RandomHistory:
        """A user of the test split with what came next, or random items where there is no dataset."""
        if self.data is not None and len(self.data.test):
            return self._history_in(self.data.test, random.randrange(len(self.data.test)))
        known = self.tokenizer.item_ids
        return RandomHistory(random.sample(known, min(len(known), random.randint(*RANDOM_LENGTHS))))

    def popular(self, limit: int, exclude: list[str]) -> tuple[list[str], list[int]]:
        """The items most frequent in training, without removed ones, and their counts there; ties by item index.

        Raises:
            ValueError: there is no dataset to count in, and the model holds no counts.
        """
        counts = self.model.catalogue.item_counts.cpu().numpy().copy() if self.data is None else self.data.item_counts
        if not counts.any():
            raise ValueError(
                "The history is empty: add an item to it. (This model doesn't hold how popular its items are; with "
                "`--data` they could be counted.)"
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
        """The most probable items, or a draw of items, with the beam that led to them.

        Weights of re-ranking and of votes are the model's own; a draw knows neither.

        Args:
            history (`list[str]`): item ids, oldest first.
            top_k (`int`): items of the list.
            num_beams (`int`): prefixes that each level keeps, at least `top_k`.
            temperature (`float`, *optional*, defaults to 0): 0 for the most probable items, as `recommend` of the
                model finds them; above 0 items are drawn without replacement as in `sample_items`, and probabilities
                are those of the distribution drawn from.
            exclude (`list[str]`, *optional*): items that must not come.
            exclude_history (`bool`, *optional*): whether no item of the history comes; by default as the model's own
                settings say.

        Raises:
            ValueError: an unknown item, an empty history, or a beam narrower than the list.
        """
        settings = SearchOptions(top_k, num_beams, exclude_history).for_model(self.model)
        batch = self.tokenizer([history], return_tensors="pt").to(self.model.device)
        left_out = [*(exclude or []), *(history if settings.exclude_history else [])]  # all, not only what is read
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
        """The prefixes of one user in words, without places that no prefix took."""
        trie, beam = self.model.catalogue.trie, []
        places: dict[int, int] = {0: 0}  # beam of the level before to its place among those that are shown
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
        """Returns the first `limit` items that share the longest prefix of codes with an item, but no removed ones."""
        return self._finder.similar(item_id, limit)
