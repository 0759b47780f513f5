"""Losses of the tokenizer phase and of the recommender phase, by name."""

from dataclasses import dataclass

import torch

from ...models.modeling_rqvae import RQVAEOutput
from .arguments import ETEGRecTrainingArguments
from .losses import first_of_each, preference_semantic_alignment, sequence_item_alignment
from .negatives import negatives_of_others
from .target_batch import TargetBatch


@dataclass(frozen=True)
class AlignedTargets:
    """Distinct targets with the outputs of item tokenizer and recommender, which the losses align.

    Args:
        targets (`torch.LongTensor` of shape `(targets,)`): item indices.
        item (`RQVAEOutput`): the item tokenizer's output for these items.
        projection (`torch.FloatTensor` of shape `(targets, latent_size)`): projected history before each target.
        preference (`torch.FloatTensor` of shape `(targets, input_size)`): preference latents before each target.
    """

    targets: torch.LongTensor
    item: RQVAEOutput
    projection: torch.FloatTensor
    preference: torch.FloatTensor


@dataclass(frozen=True)
class PhaseLosses:
    """Computes the losses of a phase whose weight isn't 0.

    Args:
        args ([`ETEGRecTrainingArguments`]): temperature and negatives of the alignment.
        semantic_embedding (`torch.FloatTensor` of shape `(n_items, input_size)`, *optional*): embeddings, if the model
            holds none.
    """

    args: ETEGRecTrainingArguments
    semantic_embedding: torch.FloatTensor | None

    def of_tokenizer(self, core, batch: TargetBatch, weights: dict[str, float]) -> dict[str, torch.Tensor]:
        """Returns RQ-VAE loss and alignment losses of a batch's distinct targets; the recommender has no gradients."""
        targets, rows = first_of_each(batch.targets)
        item = core.item_tokenizer(self._embeddings_of(core, targets))
        parts = {"vq": item.loss} if "vq" in weights else {}
        if weights.keys() & {"sia", "psa"}:
            batch, rows = batch.narrowed_to(rows)
            with torch.no_grad():
                outputs = core(**batch.inputs(core))  # only the decoder's first position
            aligned = AlignedTargets(targets, item, *batch.latents_before(outputs, rows))
            parts |= self._alignment(core, aligned, weights)
        return parts

    def of_recommender(
        self, model, core, batch: TargetBatch, weights: dict[str, float]
    ) -> tuple[dict[str, torch.Tensor], object]:
        """Returns the code loss of a batch, and alignment losses of its distinct targets with a frozen RQ-VAE."""
        is_labelled = bool(weights.keys() & {"code", "item"})
        outputs = model(**(batch.labelled_inputs(core) if is_labelled else batch.inputs(core)))
        parts = {name: part for name, part in (("code", outputs.loss), ("item", outputs.item_loss)) if name in weights}
        if weights.keys() & {"sia", "psa"}:
            targets, rows = first_of_each(batch.targets)
            with torch.no_grad():
                item = core.item_tokenizer(self._embeddings_of(core, targets))
            aligned = AlignedTargets(targets, item, *batch.latents_before(outputs, rows))
            parts |= self._alignment(core, aligned, weights)
        return parts, outputs

    def _embeddings_of(self, core, targets: torch.LongTensor) -> torch.FloatTensor:
        """Returns semantic embeddings `[n, input_size]` of item indices `[n]`."""
        if self.semantic_embedding is None:
            return core.catalogue.semantic_embedding[targets]
        return self.semantic_embedding[targets.to(self.semantic_embedding.device) - 1].to(targets.device)

    def _alignment(self, core, aligned: AlignedTargets, weights: dict[str, float]) -> dict[str, torch.Tensor]:
        """Returns SIA and PSA, as far as their weights aren't 0."""
        parts = {}
        if "sia" in weights:
            sequence_logits = core.item_tokenizer.quantizer(aligned.projection).code_logits
            parts["sia"] = sequence_item_alignment(sequence_logits, aligned.item.code_logits)
        if "psa" in weights:
            others, reconstruction = None, aligned.item.reconstruction
            if self.args.gather_negatives and self.args.world_size > 1:
                others = negatives_of_others(aligned.targets, aligned.preference, reconstruction)
            parts["psa"] = preference_semantic_alignment(
                aligned.preference, reconstruction, self.args.temperature, others
            )
        return parts
