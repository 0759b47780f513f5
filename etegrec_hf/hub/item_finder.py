"""Search for items of a model by words, by ids, and by the codes that items share."""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property

from ..models.modeling_etegrec import ETEGRecForConditionalGeneration
from ..models.tokenization_etegrec import ETEGRecTokenizer

NEAR_WORDS = 5  # of the catalogue, that a word which it doesn't have may have meant
NEAR = 0.7  # of difflib's ratio: a letter wrong, missing or too many in a word of four


@dataclass(frozen=True)
class SimilarItems:
    """Items that share the longest prefix of codes with an item.

    Args:
        item_ids (`list[str]`): ids of the first such items.
        shared_codes (`int`): length of the prefix; 0 if no item shares even the first code.
        total (`int`): how many such items there are in all.
    """

    item_ids: list[str]
    shared_codes: int
    total: int


class ItemFinder:
    """Finds items of a model.

    Args:
        model ([`ETEGRecForConditionalGeneration`]): the model.
        tokenizer ([`ETEGRecTokenizer`]): the model's tokenizer.
        titles (`Mapping[str, str]`): titles by item id; items without title are found by their id.
    """

    def __init__(self, model: ETEGRecForConditionalGeneration, tokenizer: ETEGRecTokenizer, titles: Mapping[str, str]):
        self.model, self.tokenizer, self.titles = model, tokenizer, titles
        self._texts = [f"{titles.get(item_id, '')} {item_id}".strip().casefold() for item_id in tokenizer.item_ids]

    def find(self, query: str, limit: int) -> tuple[list[str], int]:
        """Finds items whose title or id contains all words of `query`.

        Returns:
            the first `limit` item ids, and how many there are in all. The item whose id is the query comes first, then
            items whose title begins with the first word.
        """
        words = query.casefold().split()
        rows = [row for row, text in enumerate(self._texts) if all(word in text for word in words)] if words else []
        item_ids, first = self.tokenizer.item_ids, query.strip()
        rows.sort(key=lambda row: (item_ids[row] != first, not self._texts[row].startswith(words[0])))
        return [item_ids[row] for row in rows[:limit]], len(rows)

    def near(self, query: str, limit: int) -> list[str]:
        """Finds items for a query with typing errors. A word that no item has stands for words of titles like it.

        Returns:
            the first `limit` item ids, those with the words most like the query's first.
        """
        meant = [self._words_near(word) for word in query.casefold().split()]
        ranked = []
        for row, text in enumerate(self._texts):
            places = [next((place for place, word in enumerate(words) if word in text), None) for words in meant]
            if places and None not in places:
                ranked.append((sum(place for place in places if place is not None), row))
        return [self.tokenizer.item_ids[row] for _, row in sorted(ranked)[:limit]]

    def _words_near(self, word: str) -> list[str]:
        if any(word in text for text in self._texts):
            return [word]
        return get_close_matches(word, self._words, NEAR_WORDS, NEAR)

    @cached_property
    def _words(self) -> list[str]:
        return sorted({word for title in self.titles.values() for word in title.casefold().split()})

    def similar(self, item_id: str, limit: int) -> SimilarItems:
        """Returns the first `limit` items that share the longest prefix of codes with an item, without removed items.

        Raises:
            ValueError: the item isn't known.
        """
        tokens, (index,) = self.tokenizer.item_tokens, self.tokenizer.index_of([item_id])
        shared = (tokens == tokens[index]).long().cumprod(1).sum(1)  # [n_items + 1] codes from the first on
        shared[self.model.catalogue.is_removed.cpu()] = 0
        shared[[0, index]] = 0
        length = int(shared.max())
        rows = (shared == length).nonzero().squeeze(1) if length else shared[:0]
        return SimilarItems(self.tokenizer.ids_of(rows[:limit]), length, len(rows))
