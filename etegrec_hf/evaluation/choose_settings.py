"""The choice of a model's search settings on validation users."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch

from ..data.prepared import PreparedDataset
from ..data.progress import WorkProgress
from ..models.modeling_etegrec import ETEGRecForConditionalGeneration
from ..models.search import preference_cosines, reading_of, reranked, search, start_states
from ..models.search_options import SearchOptions, SearchSettings, can_rerank, can_vote
from ..models.tokenization_etegrec import ETEGRecTokenizer
from .evaluate import EvaluateOptions
from .metrics import KS, metrics_of_ranks, target_ranks
from .recommend_split import HistoryBatch, history_batches
from .seen import seen_items

TRANSITION_WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7)
RERANK_WEIGHTS = (0.0, 1.0, 2.0, 4.0, 8.0)
WEIGHTS = ("transition_weight", "rerank_weight")
CHOSEN_BY, LISTED = "ndcg@10", 10  # the metric that decides, and the length of lists that it needs


@dataclass(frozen=True)
class ChosenSettings:
    """Results of [`choose_settings`].

    Args:
        settings (`dict`): the best settings, for `search_settings` of the model's configuration.
        tried (`list[dict[str, float]]`): each pair of `transition_weight` and `rerank_weight` that was tried, with its
            metrics on the validation split, see [`ranking_metrics`].
    """

    settings: dict[str, Any]
    tried: list[dict[str, float]]

    @classmethod
    def joined(cls, parts: list["ChosenSettings"], n_users: list[int]) -> "ChosenSettings":
        """Chooses by all users of several choices from the same weights.

        Args:
            parts (`list[ChosenSettings]`): choices on different users of a split.
            n_users (`list[int]`): number of users of each choice.
        """
        shares, tried = np.array(n_users) / sum(n_users), []
        for same in zip(*(part.tried for part in parts)):
            means = {name: float(shares @ [row[name] for row in same]) for name in same[0]}
            tried.append(means | {name: same[0][name] for name in WEIGHTS})
        best = best_of(tried)
        return cls(parts[0].settings | {name: best[name] for name in WEIGHTS}, tried)


def check_chooses(options: EvaluateOptions) -> None:
    """Raises a `ValueError` if options of an evaluation ask for a split other than validation."""
    if options.split != "validation":
        raise ValueError(
            f"`split` is {options.split!r}, but weights must be chosen on 'validation'; choose them there and "
            "evaluate on 'test' afterwards, as results on the users for whom weights were chosen are too good."
        )


def choose_settings(
    model: ETEGRecForConditionalGeneration,
    tokenizer: ETEGRecTokenizer,
    data: PreparedDataset,
    options: EvaluateOptions,
    transition_weights: Iterable[float] = TRANSITION_WEIGHTS,
    rerank_weights: Iterable[float] = RERANK_WEIGHTS,
) -> ChosenSettings:
    """Chooses the weights of transition votes and re-ranking with the best NDCG@10 on the validation split.

    All pairs of weights are tried, always including 0. Histories are encoded once. Each transition weight costs one
    search, and each re-ranking weight only sorts the items that a search found. Among equally good pairs, the one with
    the smaller transition weight is chosen, then the one with the smaller re-ranking weight. Other settings are those
    of the evaluation. The width of the beam isn't chosen, as a wider beam is rarely worse.

    Args:
        model ([`ETEGRecForConditionalGeneration`]): a model in eval mode; it isn't changed.
        tokenizer ([`ETEGRecTokenizer`]): the model's tokenizer.
        data ([`PreparedDataset`]): a dataset whose items the model knows. Only its training and validation splits are
            read.
        options ([`EvaluateOptions`]): options of an evaluation on the validation split. A weight that they give is
            kept.
        transition_weights (`Iterable[float]`, *optional*): weights to try, if the model keeps transitions.
        rerank_weights (`Iterable[float]`, *optional*): weights to try, if the model has what re-ranking needs.

    Raises:
        ValueError: a split other than validation.
        ValueError: a beam too narrow for lists of 10 items.
        ValueError: weights that [`SearchSettings`] refuses.
        ValueError: the dataset has items that the model doesn't know.
    """
    check_chooses(options)
    base = options.settings(model)
    if base.num_beams < LISTED:
        raise ValueError(
            f"`num_beams` is {base.num_beams}, but weights are chosen by {CHOSEN_BY}; give {LISTED} or more."
        )
    votes = _tried(options.transition_weight, transition_weights, can_vote(model))
    again = _tried(options.rerank_weight, rerank_weights, can_rerank(model))
    pairs = [replace(base, transition_weight=vote, rerank_weight=weight) for vote, weight in product(votes, again)]
    data = data.with_items(tokenizer.item_ids)
    split = data.split(options.split)
    seen = seen_items(data, split) if base.exclude_history else None
    ranks = {settings: np.zeros(len(split), dtype=np.int64) for settings in pairs}
    with WorkProgress() as progress, torch.autocast(model.device.type, torch.bfloat16, enabled=options.bf16):
        advance = partial(progress.work_done, progress.begin("choosing weights", len(split), "users"))
        for batch in history_batches(model, split, model.config.max_history, options.batch_size, seen):
            for settings, items in _lists(model, batch, pairs).items():
                ranks[settings][batch.rows] = target_ranks(items, split.targets[batch.rows])
            advance(len(batch.rows))
    measured = tuple(k for k in KS if k <= base.num_beams)
    tried = []
    for settings in pairs:
        weights = {name: getattr(settings, name) for name in WEIGHTS}
        metrics = metrics_of_ranks(ranks[settings], measured)
        tried.append(weights | {name: float(values.mean()) for name, values in metrics.items()})
    return ChosenSettings(asdict(pairs[tried.index(best_of(tried))]), tried)


def best_of(tried: list[dict[str, float]]) -> dict[str, float]:
    """Returns the weights with the best metric, and their metrics; of equally good ones the first."""
    return max(tried, key=lambda weights: weights[CHOSEN_BY])


def _tried(given: float | None, weights: Iterable[float], can_use: bool) -> list[float]:
    """Returns the weights to try, in ascending order."""
    if given is not None:
        return [given]
    return sorted({0.0, *map(float, weights)}) if can_use else [0.0]


def _lists(
    model: ETEGRecForConditionalGeneration, batch: HistoryBatch, pairs: list[SearchSettings]
) -> dict[SearchSettings, np.ndarray]:
    """Returns a batch's lists `[users, num_beams]` by settings, which differ only in their weights."""
    reading = reading_of(model, encoded=model.encode_history(**batch.inputs))
    states = start_states(reading) if any(settings.rerank_weight for settings in pairs) else None
    beams, cosines, lists = {}, {}, {}
    for settings in pairs:
        vote, width = settings.transition_weight, settings.num_beams
        if vote not in beams:
            beams[vote] = search(reading, SearchOptions(width, width, False, 0.0, vote), batch.exclude)
            if states is not None:
                cosines[vote] = preference_cosines(model, states, beams[vote].items)
        beam = beams[vote]
        if settings.rerank_weight:
            beam = reranked(beam, cosines[vote], settings.rerank_weight)
        lists[settings] = beam.items.cpu().numpy()
    return lists
