"""Training batches of both kinds of datasets in one form."""

from dataclasses import dataclass
from functools import cached_property

import torch

from ...models.modeling_etegrec import ETEGRecForConditionalGeneration


@dataclass(frozen=True)
class TargetBatch:
    """Items that the model reads, and their targets.

    Args:
        items (`torch.LongTensor` of shape `(batch, items)`): item indices, padded right with 0.
        labels (`torch.LongTensor` of shape `(batch,)` or `(batch, items)`): the target after each history, or after
            each item of a whole sequence; 0 for no target.
        history_lengths (`torch.LongTensor` of shape `(batch, items)`, *optional*): how many items of a whole sequence
            come before each target.
    """

    items: torch.LongTensor
    labels: torch.LongTensor
    history_lengths: torch.LongTensor | None = None

    @classmethod
    def of(cls, inputs: dict[str, torch.Tensor]) -> "TargetBatch":
        """Returns the batch that a [`SequenceDataset`] or [`WholeSequenceDataset`] made."""
        if "history" in inputs:
            return cls(inputs["history"], inputs["target"])
        labels = inputs["labels"]
        is_target = labels > 0
        items_before = torch.arange(1, labels.shape[1] + 1, device=labels.device)
        return cls(inputs["input_ids"], labels, items_before * is_target)

    @cached_property
    def is_target(self) -> torch.BoolTensor:
        """Returns which elements of `labels` are targets, in the shape of `labels`."""
        return self.labels > 0

    @cached_property
    def targets(self) -> torch.LongTensor:
        """Returns the item indices of the targets, `[targets]`."""
        return self.labels[self.is_target]

    def narrowed_to(self, rows: torch.LongTensor) -> tuple["TargetBatch", torch.LongTensor]:
        """Returns the part of the batch that is read before some targets, and their places among its targets.

        Args:
            rows (`torch.LongTensor` of shape `(n,)`): places of these targets in `targets`.
        """
        if self.history_lengths is not None:  # one pass over a sequence has the latents before all its targets
            return self, rows
        return TargetBatch(self.items[rows], self.labels[rows]), torch.arange(len(rows), device=rows.device)

    def latents_before(self, outputs, rows: torch.LongTensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns sequence projections `[n, latent_size]` and preference latents `[n, input_size]` before targets.

        Args:
            outputs (`ETEGRecOutput`): the model's outputs for this batch.
            rows (`torch.LongTensor` of shape `(n,)`): places of these targets in `targets`.
        """
        projection, preference = outputs.sequence_projection, outputs.preference_latents
        return projection[self.is_target][rows], preference[self.is_target][rows]

    def inputs(self, model: ETEGRecForConditionalGeneration) -> dict[str, torch.Tensor]:
        """Returns the arguments of `forward` for the latents before the targets."""
        inputs = model.catalogue.inputs_from_items(self.items)
        return inputs if self.history_lengths is None else inputs | {"history_lengths": self.history_lengths}

    def labelled_inputs(self, model: ETEGRecForConditionalGeneration) -> dict[str, torch.Tensor]:
        """Returns the arguments of `forward` for the latents before the targets and for the targets' code loss."""
        name = "labels" if self.history_lengths is None else "sequence_labels"
        return self.inputs(model) | {name: model.catalogue.item_tokens[self.labels]}
