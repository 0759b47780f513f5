"""How well a recommender ranks the items of a split, and baselines beside it."""

from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from transformers import GPT2LMHeadModel

from ..data.checks import check_choice, check_positive
from ..data.prepared import PreparedDataset
from ..data.progress import WorkProgress
from ..data.splits import SPLIT_NAMES
from ..models.modeling_etegrec import ETEGRecForConditionalGeneration
from ..models.search_options import SearchOptions, SearchSettings
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

NUM_BEAMS = 50  # of a model whose own settings don't say how many


@dataclass(frozen=True)
class EvaluateOptions:
    """Options of [`evaluate`]. Settings of the search that aren't given are the model's own.

    Raises:
        ValueError: a number below 1.
        ValueError: a `split` that is neither validation nor test.
        ValueError: weights that [`SearchOptions`] refuses.
    """

    help_group: ClassVar[str] = "search"

    split: str = field(default="test", metadata={"help": "validation or test."})
    num_beams: int | None = field(
        default=None,
        metadata={
            "help": "Beams; metrics at longer lists are left out. By default those of the model's own settings, or 50."
        },
    )
    rerank_weight: float | None = field(
        default=None, metadata={"help": "Weight of preference re-ranking; by default the model's own."}
    )
    transition_weight: float | None = field(
        default=None, metadata={"help": "Share of transition votes; by default the model's own."}
    )
    batch_size: int = field(default=64, metadata={"help": "Users at a time."})
    exclude_seen: bool | None = field(
        default=None,
        metadata={
            "help": "Leave items that the user had before out of the lists; by default as the model's own "
            "`exclude_history` says.",
            "nargs": "?",
            "const": True,
        },
    )
    bf16: bool = field(default=False, metadata={"help": "Decode under bfloat16 autocast."})

    def __post_init__(self):
        check_choice("split", self.split, SPLIT_NAMES[1:])
        check_positive("batch_size", self.batch_size)
        self._given(self.num_beams)  # raises what is wrong with it

    def settings(self, model: ETEGRecForConditionalGeneration) -> SearchSettings:
        """Returns how items are searched for: as given, or else by the model's own settings.

        Raises:
            ValueError: weights, also the model's own, for which it lacks something.
        """
        num_beams = self.num_beams or model.config.search_settings.get("num_beams", NUM_BEAMS)
        return self._given(num_beams).for_model(model)

    def _given(self, num_beams: int | None) -> SearchOptions:
        return SearchOptions(1, num_beams, self.exclude_seen, self.rerank_weight, self.transition_weight)


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
        baseline_ranks (`dict[str, np.ndarray]`): the same of each baseline.
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
    baseline_ranks: dict[str, np.ndarray]

    def figures(self) -> dict[str, Any]:
        """Returns all but the ranks, by their names."""
        return {entry.name: getattr(self, entry.name) for entry in fields(self) if not entry.name.endswith("ranks")}


def ranking_options(settings: SearchSettings) -> SearchOptions:
    """Returns how lists are made that metrics are measured of: no longer than the beam is wide.

    Seen items are excluded by what is known of users, so not by their histories too.
    """
    listed = min(max(KS), settings.num_beams)
    return SearchOptions(listed, settings.num_beams, False, settings.rerank_weight, settings.transition_weight)


def evaluate(
    model: ETEGRecForConditionalGeneration,
    tokenizer: ETEGRecTokenizer,
    data: PreparedDataset,
    options: EvaluateOptions | None = None,
    collaborative_model: GPT2LMHeadModel | None = None,
) -> Evaluation:
    """Measures a recommender on a split, and baselines on the same split.

    Args:
        model ([`ETEGRecForConditionalGeneration`]): in eval mode.
        tokenizer ([`ETEGRecTokenizer`]): of the model.
        data ([`PreparedDataset`]): whose items the model knows.
        options ([`EvaluateOptions`], *optional*): by default all of its defaults.
        collaborative_model (`GPT2LMHeadModel`, *optional*): of the same dataset, for the SASRec row.

    Raises:
        ValueError: the dataset has items that the model doesn't know.
    """
    options = options or EvaluateOptions()
    data = data.with_items(tokenizer.item_ids)
    split = data.split(options.split)
    settings = options.settings(model)
    exclude_seen = settings.exclude_history
    seen = seen_items(data, split) if exclude_seen else None
    with WorkProgress() as progress, torch.autocast(model.device.type, torch.bfloat16, enabled=options.bf16):
        ranked = recommend_split(
            model,
            split,
            ranking_options(settings),
            options.batch_size,
            seen,
            partial(progress.work_done, progress.begin("evaluating", len(split), "users")),
        )
    lists = baseline_lists(data, split, collaborative_model=collaborative_model, exclude_seen=exclude_seen)
    dtype = "bfloat16 autocast" if options.bf16 else str(model.dtype).removeprefix("torch.")
    return Evaluation(
        split=options.split,
        metrics=ranking_metrics(ranked, split.targets),
        spread=spread_metrics(ranked, data.item_counts),
        intervals=confidence_intervals(ranked, split.targets),
        baselines=metrics_of_systems(lists, split.targets),
        parts=metrics_by_part(memorised_targets(data, split), split.targets, lists, ranked),
        protocol=protocol_of(data, options.split, exclude_seen, num_beams=settings.num_beams, dtype=dtype),
        rerank_weight=settings.rerank_weight,
        transition_weight=settings.transition_weight,
        ranks=target_ranks(ranked, split.targets),
        baseline_ranks={name: target_ranks(listed, split.targets) for name, listed in lists.items()},
    )
