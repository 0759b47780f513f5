"""Alternating training and finetuning of the recommender."""

import math
from collections import defaultdict

import torch
from transformers import EarlyStoppingCallback, EvalPrediction, get_scheduler

from ...data.sequences import SequenceDataset, WholeSequenceDataset, as_batch
from ...data.streamed_sequences import StreamedSequences
from ...evaluation.metrics import KS, ranking_metrics
from ...models.modeling_etegrec import ETEGRecForConditionalGeneration
from ...models.tokenization_etegrec import ETEGRecTokenizer
from ..base.callbacks import EpochBorderCallback
from ..base.recording import RecordedTraining
from .arguments import ETEGRecTrainingArguments
from .batches import BatchesOfLikeLength
from .callbacks import AlternatingPhaseCallback, CodeRefreshCallback
from .cheap_dropout import cheapen_dropout
from .losses import first_of_each, preference_semantic_alignment, sequence_item_alignment
from .mean_gradients import MeanGradients
from .negatives import negatives_of_others
from .schedule import PhaseScheduler


class ETEGRecTrainer(BatchesOfLikeLength, MeanGradients, RecordedTraining):
    """Trains a recommender and its item tokenizer in turns, or finetunes the recommender.

    What differs from transformers' Trainer: `compute_loss` (named parts, by phase, each batch weighted by its
    targets), the optimizer and scheduler (a group for each side), `prediction_step` (ranked items instead of logits),
    and what is saved (the tokenizer of the codes of this moment). Batches, several processes and the training record
    are its bases' matter, freezing and code refreshing that of callbacks.

    Args:
        model ([`ETEGRecForConditionalGeneration`]): with codes, and with semantic embeddings unless they are given.
        args ([`ETEGRecTrainingArguments`]): arguments; [`FinetuningArguments`] for the finetune stage.
        item_ids (`list[str]`): in the order of item indices.
        train_dataset ([`SequenceDataset`] or [`WholeSequenceDataset`]): every position is a target, by a pass over its
            own history, or by one pass over the sequence that it stands in, for which the encoder must be causal. Or
            [`StreamedSequences`] that make these.
        eval_dataset ([`SequenceDataset`], *optional*): the last positions are targets.
        item_titles (`dict[str, str]`, *optional*): titles of items, saved with the tokenizer.
        semantic_embedding (`torch.FloatTensor` of shape `(n_items, input_size)`, *optional*): for a model that holds
            none. They stay where they are, on disk if they are mapped: only rows of a batch's targets are read, and
            no checkpoint holds them.
        record ([`TrainingRecord`], *optional*): what is known of data and earlier stages.
        **kwargs: further arguments of `Trainer`.

    Raises:
        ValueError: another number of ids than the model has items, no embeddings to train the tokenizer with, or
            `semantic_embedding` beside those of the model, of another shape or with NaN.
    """

    loss_is_scaled_for_ga = True  # by each batch's share of the targets
    unit = "targets"

    def __init__(
        self,
        model: ETEGRecForConditionalGeneration,
        args: ETEGRecTrainingArguments,
        item_ids: list[str],
        train_dataset: SequenceDataset | WholeSequenceDataset | StreamedSequences,
        eval_dataset: SequenceDataset | None = None,
        item_titles: dict[str, str] | None = None,
        semantic_embedding: torch.FloatTensor | None = None,
        **kwargs,
    ):
        if len(item_ids) != model.config.n_items:
            raise ValueError(
                f"data and model disagree: `item_ids` holds {len(item_ids)} items and the model "
                f"{model.config.n_items}; "
                "use the dataset that the model was made for."
            )
        aligns = args.phase(0) == "tokenizer" or args.sia_weight > 0 or args.psa_weight > 0
        if model.item_tokenizer is None and aligns:
            raise ValueError(
                "the model holds no item tokenizer (`has_item_tokenizer` is False), so there is nothing to alternate "
                "with or align to; finetune it instead, with `sia_weight` and `psa_weight` 0."
            )
        if semantic_embedding is not None:
            if model.catalogue.semantic_embedding is not None:
                raise ValueError(
                    "`semantic_embedding` is given and the model holds some too; leave it out, or make the model with "
                    "`has_semantic_embedding=False`."
                )
            model.check_semantic_embedding(semantic_embedding)
        elif model.catalogue.semantic_embedding is None and aligns:
            raise ValueError(
                "the model holds no `semantic_embedding`, which alternating training and alignment need; load one "
                "that does, or give them to the trainer."
            )
        self.item_ids, self.item_titles = item_ids, item_titles
        self.semantic_embedding = semantic_embedding
        self.stage = "finetuning" if args.phase(0) == "finetune" else "alternating training"
        self.phase, self.aligned = "finetune", False
        self.optimizer: torch.optim.Optimizer | None
        self.lr_scheduler: PhaseScheduler | None
        self._parts: dict[str, list] = defaultdict(lambda: [0.0, 0])
        if args.device.type == "cpu":
            for stack in (model.encoder, model.decoder):
                cheapen_dropout(stack)
        super().__init__(
            model=model,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            data_collator=as_batch,
            compute_metrics=rank,
            processing_class=self.item_id_tokenizer(model),
            **kwargs,
        )
        self.add_callback(EpochBorderCallback())
        self.add_callback(CodeRefreshCallback(self))
        self.add_callback(AlternatingPhaseCallback(self))
        if args.early_stopping_patience is not None:
            self.add_callback(EarlyStoppingCallback(args.early_stopping_patience))

    def item_id_tokenizer(self, model: ETEGRecForConditionalGeneration) -> ETEGRecTokenizer:
        """The tokenizer of the codes that the model has now."""
        config = model.config
        return ETEGRecTokenizer.from_item_codes(
            self.item_ids,
            model.catalogue.item_codes,
            config.codebook_size,
            max_history=config.max_history,
            item_titles=self.item_titles,
        )

    @property
    def progress_title(self) -> str:
        """The phase, where phases take turns."""
        return self.stage if self.phase == "finetune" else f"{self.phase} phase"

    def samples_an_epoch(self) -> int:
        """Targets, of whole sequences too."""
        return self.train_dataset.n_targets

    # Phases

    def enter_phase(self, phase: str, aligned: bool) -> None:
        """Thaws the side that `phase` trains and freezes the other; `aligned` says whether SIA and PSA count."""
        self.phase, self.aligned = phase, aligned
        self.model.requires_grad_(phase != "tokenizer")
        if self.model.item_tokenizer is not None:
            self.model.item_tokenizer.requires_grad_(phase == "tokenizer")

    def compute_loss(self, model, inputs, return_outputs: bool = False, num_items_in_batch=None):
        """The weighted sum of the phase's loss parts, each of which is logged by its name."""
        core = self.accelerator.unwrap_model(model)
        trains_tokenizer = self.phase == "tokenizer"
        core.train(not trains_tokenizer)  # dropout only on the side that is trained
        if core.item_tokenizer is not None:
            core.item_tokenizer.train(trains_tokenizer)
        weights = {
            "vq": self.args.vq_weight * trains_tokenizer,
            "code": self.args.code_weight * (not trains_tokenizer),
            "sia": self.args.sia_weight * self.aligned,
            "psa": self.args.psa_weight * self.aligned,
        }
        weights = {name: weight for name, weight in weights.items() if weight > 0}
        if not weights:
            raise ValueError(
                f"every loss of the {self.phase} phase has weight 0 now: `vq_weight` or `code_weight`, and before "
                "`warm_epochs` the alignments too; give one of them a weight."
            )
        if trains_tokenizer:
            parts, outputs = self._tokenizer_losses(core, inputs, weights), None
        else:
            parts, outputs = self._recommender_losses(model, core, inputs, weights)
        for name, part in parts.items():
            self.log_part(f"loss_{name}", part.detach())
        loss = torch.stack([weights[name] * part for name, part in parts.items()]).sum()
        if num_items_in_batch is not None:  # each target counts alike in an update, of whatever batch and process
            loss = loss * len(targets_of(inputs)[0]) * self.args.world_size / num_items_in_batch
        return (loss, outputs) if return_outputs else loss

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> torch.Tensor:
        """Targets of all batches and processes that make up an update."""
        targets = sum(len(targets_of(inputs)[0]) for inputs in batch_samples)
        return self.accelerator.reduce(torch.tensor(float(targets), device=device), "sum")

    def _tokenizer_losses(self, core, inputs, weights) -> dict[str, torch.Tensor]:
        """RQ-VAE loss and alignment of a batch's distinct targets; the recommender only looks on."""
        all_targets, is_target = targets_of(inputs)
        targets, rows = first_of_each(all_targets)
        item = core.item_tokenizer(self._embeddings_of(core, targets))
        parts = {"vq": item.loss} if "vq" in weights else {}
        if weights.keys() & {"sia", "psa"}:
            if "history" in inputs:  # those of the distinct targets alone
                inputs, is_target = {name: tensor[rows] for name, tensor in inputs.items()}, is_target[rows]
                rows = torch.arange(len(rows), device=rows.device)
            with torch.no_grad():
                latents = core(**model_inputs(core, inputs))  # the decoder's first position alone
            parts |= self._alignment(core, latents, is_target, rows, targets, item, weights)
        return parts

    def _recommender_losses(self, model, core, inputs, weights) -> tuple[dict[str, torch.Tensor], object]:
        """Code loss of a batch, and alignment of its distinct targets to an RQ-VAE that stands still."""
        targets = inputs["target"] if "history" in inputs else inputs["labels"]
        labels = core.catalogue.item_tokens[targets] if "code" in weights else None
        outputs = model(**model_inputs(core, inputs), labels=labels)
        parts = {"code": outputs.loss} if "code" in weights else {}
        if weights.keys() & {"sia", "psa"}:
            all_targets, is_target = targets_of(inputs)
            targets, rows = first_of_each(all_targets)
            with torch.no_grad():
                item = core.item_tokenizer(self._embeddings_of(core, targets))
            parts |= self._alignment(core, outputs, is_target, rows, targets, item, weights)
        return parts, outputs

    def _embeddings_of(self, core, targets: torch.LongTensor) -> torch.FloatTensor:
        """Semantic embeddings `[n, input_size]` of item indices `[n]`."""
        if self.semantic_embedding is None:
            return core.catalogue.semantic_embedding[targets]
        return self.semantic_embedding[targets.to(self.semantic_embedding.device) - 1].to(targets.device)

    def _alignment(self, core, latents, is_target, rows, targets, item, weights) -> dict[str, torch.Tensor]:
        """SIA and PSA between `targets` and the latents before them, in the rows `rows` counted among all targets."""
        projection, preference = (
            latent[is_target][rows] for latent in (latents.sequence_projection, latents.preference_latents)
        )
        parts = {}
        if "sia" in weights:
            sequence_logits = core.item_tokenizer.quantizer(projection).code_logits
            parts["sia"] = sequence_item_alignment(sequence_logits, item.code_logits)
        if "psa" in weights:
            others = None
            if self.args.gather_negatives and self.args.world_size > 1:
                others = negatives_of_others(targets, preference, item.reconstruction)
            parts["psa"] = preference_semantic_alignment(
                preference, item.reconstruction, self.args.temperature, others
            )
        return parts

    def _get_grad_norm(self, model, grad_norm=None):
        """Trainer's, of before clipping; also logged as that of the side in training, the only one with gradients."""
        grad_norm = super()._get_grad_norm(model, grad_norm)
        side = "item_tokenizer" if self.phase == "tokenizer" else "recommender"
        self.log_part(f"grad_norm_{side}", grad_norm)
        return grad_norm

    def log_part(self, name: str, value) -> None:
        """Adds a value to the mean that the next log shows under `name`."""
        entry = self._parts[name]
        entry[0], entry[1] = entry[0] + value, entry[1] + 1

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Logs, with the means of the named parts since the last training log."""
        if "loss" in logs:
            logs = logs | {name: float(total) / count for name, (total, count) in self._parts.items()}
            logs["tokenizer_phase"] = float(self.phase == "tokenizer")
            self._parts.clear()
        super().log(logs, start_time)

    # Optimizer and schedule

    def create_optimizer(self, model=None) -> torch.optim.Optimizer:
        """AdamW with two groups: the recommender, and the item tokenizer if there is one."""
        if self.optimizer is None:
            item_tokenizer = self.model.item_tokenizer
            tokenizer = [] if item_tokenizer is None else list(item_tokenizer.parameters())
            own = {id(parameter) for parameter in tokenizer}
            recommender = [parameter for parameter in self.model.parameters() if id(parameter) not in own]
            optimizer_class, options = self.get_optimizer_cls_and_kwargs(self.args, self.model)
            groups = [{"params": recommender, "lr": self.args.learning_rate}]
            if tokenizer:
                groups.append({"params": tokenizer, "lr": self.args.tokenizer_learning_rate})
            self.optimizer = optimizer_class(groups, weight_decay=self.args.weight_decay, **options)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer=None) -> PhaseScheduler:
        """A schedule of `lr_scheduler_type` for each group, over the steps of its own phase."""
        if self.lr_scheduler is None:
            epoch_steps = math.ceil(self._batches_an_epoch() / self.args.gradient_accumulation_steps)
            phases = [self.args.phase(step // epoch_steps) for step in range(num_training_steps)]
            if phases[-1] == "tokenizer":
                raise ValueError(
                    f"`max_steps` {num_training_steps} ends in a tokenizer epoch ({epoch_steps} steps each, `cycle` "
                    f"{self.args.cycle}), whose codes no recommender would learn; end it in a recommender epoch."
                )
            tokenizer_steps = phases.count("tokenizer")
            factors = []
            lengths = (num_training_steps - tokenizer_steps, tokenizer_steps)
            for steps, group in zip(lengths, self.create_optimizer().param_groups):
                schedule = get_scheduler(
                    self.args.lr_scheduler_type,
                    torch.optim.SGD([torch.zeros(1)], lr=group.get("initial_lr", group["lr"])),
                    num_warmup_steps=self.args.get_warmup_steps(steps),
                    num_training_steps=max(1, steps),
                    scheduler_specific_kwargs=self.args.lr_scheduler_kwargs,
                )
                if not hasattr(schedule, "lr_lambdas"):
                    raise ValueError(
                        f"`lr_scheduler_type` is {self.args.lr_scheduler_type.value!r}, which follows metrics and not "
                        "steps; choose one like 'cosine', 'linear' or 'constant'."
                    )
                factors.append(schedule.lr_lambdas[0])
            self.lr_scheduler = PhaseScheduler(self.optimizer, factors)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    # Evaluation and saving

    def prediction_step(self, model, inputs, prediction_loss_only: bool, ignore_keys=None):
        """Ranked item indices `[batch, listed]` and targets `[batch]`, by constrained beam search."""
        inputs = self._prepare_inputs(inputs)
        core = self.accelerator.unwrap_model(model)
        with self.accelerator.autocast():
            items, _ = core.recommend(
                **core.catalogue.inputs_from_items(inputs["history"]),
                top_k=min(max(KS), self.args.num_beams),
                num_beams=self.args.num_beams,
            )
        return None, items, inputs["target"]

    def prefixes(self) -> torch.LongTensor:
        return self.model.catalogue.item_codes[:, :-1]

    def tokenizer_spans(self) -> list[tuple[float, float]]:
        return self.args.tokenizer_spans(self.state.epoch or 0.0)

    def _save(self, output_dir: str | None = None, state_dict=None) -> None:
        self.processing_class = self.item_id_tokenizer(self.model)
        super()._save(output_dir, state_dict)


def targets_of(inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """The targets of a batch `[targets]`, and where they stand: `[batch]`, or `[batch, items]` of whole sequences."""
    targets = inputs["target"] if "history" in inputs else inputs["labels"]
    is_target = targets > 0
    return targets[is_target], is_target


def model_inputs(model: ETEGRecForConditionalGeneration, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What the model reads before a batch's targets: a history each, or whole sequences once."""
    if "history" in inputs:
        return model.catalogue.inputs_from_items(inputs["history"])
    is_target = inputs["labels"] > 0
    before = torch.arange(1, is_target.shape[1] + 1, device=is_target.device) * is_target  # items before each target
    return model.catalogue.inputs_from_items(inputs["input_ids"]) | {"history_lengths": before}


def rank(prediction: EvalPrediction) -> dict[str, float]:
    """Ranking metrics of what `prediction_step` returned."""
    return ranking_metrics(prediction.predictions, prediction.label_ids)
