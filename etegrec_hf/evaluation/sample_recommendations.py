"""Recommendations for a few users, as examples for readers."""

from dataclasses import dataclass

import numpy as np

from ..data.prepared import Split
from ..models.modeling_etegrec import ETEGRecForConditionalGeneration
from ..models.search_options import BY_CODES_ALONE, SearchOptions
from .recommend_split import recommend_split


@dataclass(frozen=True)
class SampleRecommendation:
    """A user's history, target and recommendations, as item indices.

    Args:
        user_id (`str`): id of the user.
        history (`list[int]`): items of the history, oldest first.
        target (`int`): the item that came next.
        listed (`list[int]`): recommended items, best first.
    """

    user_id: str
    history: list[int]
    target: int
    listed: list[int]


def sample_recommendations(
    model: ETEGRecForConditionalGeneration, split: Split, users: int = 5, top_k: int = 10, num_beams: int = 50
) -> list[SampleRecommendation]:
    """Recommends items for a few users, spread evenly over a split's rows.

    Like the metrics in training, it uses neither re-ranking nor transition votes.

    Args:
        model ([`ETEGRecForConditionalGeneration`]): a model in eval mode.
        split ([`Split`]): a split in which each row has a history.
        users (`int`, *optional*, defaults to 5): number of users; all rows if there are fewer.
        top_k, num_beams (`int`, *optional*): as in `model.recommend`.
    """
    chosen = np.unique(np.linspace(0, len(split) - 1, users).round().astype(np.int64))
    ranked = recommend_split(model, split.take(chosen), SearchOptions(top_k, num_beams, **BY_CODES_ALONE))
    samples = []
    for row, listed in zip(chosen, ranked):
        *history, target = split.row(row).tolist()
        samples.append(SampleRecommendation(split.user_ids[row], history, target, listed[listed > 0].tolist()))
    return samples
