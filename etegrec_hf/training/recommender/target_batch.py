"""A training batch in one shape, whichever dataset made it."""

from dataclasses import dataclass
from functools import cached_property

import torch

from ...models.modeling_etegrec import ETEGRecForConditionalGeneration


@dataclass(frozen=True)
class TargetBatch:
    """Items that the model reads, and the targets that follow them.

    Args:
        items (`torch.LongTensor` of shape `(batch, items)`): item indices, padded right with 0.
        labels (`torch.LongTensor` of shape `(batch,)` or `(batch, items)`): the target after each history, or after
            each item of a whole sequence; 0 where there is none.
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
        """Where targets stand, in the shape of `labels`."""
        return self.labels > 0

    @cached_property
    def targets(self) -> torch.LongTensor:
        """Item indices of the targets, `[targets]`."""
        return self.labels[self.is_target]

    def narrowed_to(self, rows: torch.LongTensor) -> tuple["TargetBatch", torch.LongTensor]:
        """Returns the part of the batch that is read before some targets, and where they are among its targets.

        Args:
            rows (`torch.LongTensor` of shape `(n,)`): where they are among `targets`.
        """
        if self.history_lengths is not None:  # one pass over a sequence serves all its targets
            return self, rows
        return TargetBatch(self.items[rows], self.labels[rows]), torch.arange(len(rows), device=rows.device)

    def latents_before(self, outputs, rows: torch.LongTensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns sequence projections `[n, latent_size]` and preference latents `[n, input_size]` before targets.

        Args:
            outputs (`ETEGRecOutput`): the model's, of this batch.
            rows (`torch.LongTensor` of shape `(n,)`): where they are among `targets`.
        """
        projection, preference = outputs.sequence_projection, outputs.preference_latents
        return projection[self.is_target][rows], preference[self.is_target][rows]

    def inputs(self, model: ETEGRecForConditionalGeneration) -> dict[str, torch.Tensor]:
        """Returns what `forward` reads for the latents before the targets."""
        inputs = model.catalogue.inputs_from_items(self.items)
        return inputs if self.history_lengths is None else inputs | {"history_lengths": self.history_lengths}

    def labelled_inputs(self, model: ETEGRecForConditionalGeneration) -> dict[str, torch.Tensor]:
        """Returns what `forward` reads for the code loss of the targets too."""
        name = "labels" if self.history_lengths is None else "sequence_labels"
        return self.inputs(model) | {name: model.catalogue.item_tokens[self.labels]}
