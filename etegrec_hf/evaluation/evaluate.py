"""How well a recommender ranks the items of a split, and baselines beside it."""

from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch

from ..data.checks import check_choice, check_positive
from ..data.prepared import PreparedDataset
from ..data.progress import WorkProgress
from ..data.splits import SPLIT_NAMES
from ..models.modeling_etegrec import ETEGRecForConditionalGeneration
from ..models.search import SearchOptions
from ..models.tokenization_etegrec import ETEGRecTokenizer
from .baselines import baseline_lists
from .memorisation import memorised_targets, metrics_by_part
from .metrics import (
    KS,
    confidence_intervals,
    metrics_of_systems,
    ranking_metrics,
    spread_metrics,
    target_ranks,
)
from .protocol import protocol_of
from .recommend_split import recommend_split
from .seen import seen_items


@dataclass(frozen=True)
class EvaluateOptions:
    """Options of [`evaluate`].

    Raises:
        ValueError: a number below 1.
        ValueError: a `split` that is neither validation nor test.
        ValueError: weights that [`SearchOptions`] refuses.
    """

    help_group: ClassVar[str] = "search"

    split: str = field(default="test", metadata={"help": "validation or test."})
    num_beams: int = field(default=50, metadata={"help": "Beams; metrics at longer lists are left out."})
    rerank_weight: float = field(
        default=0.0, metadata={"help": "Weight of preference re-ranking; choose it on the validation split."}
    )
    transition_weight: float = field(
        default=0.0, metadata={"help": "Share of transition votes; choose it on the validation split."}
    )
    batch_size: int = field(default=64, metadata={"help": "Users at a time."})
    exclude_seen: bool = field(
        default=False, metadata={"help": "Leave items that the user had before out of the lists."}
    )
    bf16: bool = field(default=False, metadata={"help": "Decode under bfloat16 autocast."})

    def __post_init__(self):
        check_choice("split", self.split, SPLIT_NAMES[1:])
        check_positive("num_beams", self.num_beams)
        check_positive("batch_size", self.batch_size)
        _ = self.search  # raises what is wrong with it

    @property
    def search(self) -> SearchOptions:
        """How items are searched for."""
        return SearchOptions(
            top_k=min(max(KS), self.num_beams),
            num_beams=self.num_beams,
            rerank_weight=self.rerank_weight,
            transition_weight=self.transition_weight,
        )


@dataclass(frozen=True)
class Evaluation:
    """Results of [`evaluate`].

    Args:
        split (`str`): what was ranked for.
        metrics (`dict[str, float]`): of the model, see [`ranking_metrics`].
        spread (`dict[str, float]`): of its lists over the catalogue, see [`spread_metrics`]; empty for fewer than 10
            beams.
        intervals (`dict[str, tuple[float, float]]`): of the metrics, see [`confidence_intervals`].
        baselines (`dict[str, dict[str, float]]`): metrics of each baseline.
        parts (`dict[str, dict]`): all metrics for users whose targets came right after an item of their history in
            training (`memorisation`), and for the others (`generalisation`): see [`metrics_by_part`].
        protocol (`dict`): how all of it was measured, see [`protocol_of`].
        rerank_weight, transition_weight (`float`): of the search.
        ranks (`np.ndarray` of shape `(users,)`): rank of each user's target, from 1; 0 where it isn't listed.
    """

    split: str
    metrics: dict[str, float]
    spread: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    baselines: dict[str, dict[str, float]]
    parts: dict[str, dict]
    protocol: dict[str, Any]
    rerank_weight: float
    transition_weight: float
    ranks: np.ndarray

    def figures(self) -> dict[str, Any]:
        """Returns all but the ranks, by their names."""
        return {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.name != "ranks"}


def evaluate(
    model: ETEGRecForConditionalGeneration,
    tokenizer: ETEGRecTokenizer,
    data: PreparedDataset,
    options: EvaluateOptions | None = None,
) -> Evaluation:
    """Measures a recommender on a split, and baselines on the same split.

    Args:
        model ([`ETEGRecForConditionalGeneration`]): in eval mode.
        tokenizer ([`ETEGRecTokenizer`]): of the model.
        data ([`PreparedDataset`]): whose items the model knows.
        options ([`EvaluateOptions`], *optional*): by default all of its defaults.

    Raises:
        ValueError: the dataset has items that the model doesn't know.
    """
    options = options or EvaluateOptions()
    data = data.with_items(tokenizer.item_ids)
    split = data.split(options.split)
    seen = seen_items(data, split) if options.exclude_seen else None
    with WorkProgress() as progress, torch.autocast(model.device.type, torch.bfloat16, enabled=options.bf16):
        ranked = recommend_split(
            model,
            split,
            options.search,
            options.batch_size,
            seen,
            partial(progress.work_done, progress.begin("evaluating", len(split), "users")),
        )
    lists = baseline_lists(data, split, exclude_seen=options.exclude_seen)
    dtype = "bfloat16 autocast" if options.bf16 else str(model.dtype).removeprefix("torch.")
    return Evaluation(
        split=options.split,
        metrics=ranking_metrics(ranked, split.targets),
        spread=spread_metrics(ranked, data.item_counts),
        intervals=confidence_intervals(ranked, split.targets),
        baselines=metrics_of_systems(lists, split.targets),
        parts=metrics_by_part(memorised_targets(data, split), split.targets, lists, ranked),
        protocol=protocol_of(data, options.split, options.exclude_seen, num_beams=options.num_beams, dtype=dtype),
        rerank_weight=options.rerank_weight,
        transition_weight=options.transition_weight,
        ranks=target_ranks(ranked, split.targets),
    )
