"""What a training run writes down about itself."""

import dataclasses
import platform
import time

import torch
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from ...evaluation.code_diagnostics import code_diagnostics
from ...hub.model_card import write_model_card
from ...hub.training_record import TrainingRecord, versions
from .checkpoints import SafeCheckpoints

# Where and how often things are written, which doesn't shape the model
UNTOLD = (
    "output_dir",
    "run_name",
    "hub_token",
    "hub_model_id",
    "push_to_hub",
    "disable_tqdm",
    "resume_from_checkpoint",
    "do_eval",
)
SHOWN_TYPES = (int, float, str, bool)
# What decides which samples a step of which phase reads, so that a run can't be resumed with another
ORDERING = (
    "seed",
    "per_device_train_batch_size",
    "max_tokens_per_batch",
    "gradient_accumulation_steps",
    "cycle",
    "warm_epochs",
    "freeze_tokenizer",
    "num_generations",
)


class StageClock(TrainerCallback, ExportableState):
    """Counts the seconds of training, also over interruptions."""

    def __init__(self):
        self.seconds_before, self.started = 0.0, None

    def on_train_begin(self, args, state, control, **kwargs):
        self.started = time.perf_counter()

    def on_train_end(self, args, state, control, **kwargs):
        self.seconds_before, self.started = self.seconds, None

    @property
    def seconds(self) -> float:
        return self.seconds_before + (time.perf_counter() - self.started if self.started is not None else 0.0)

    def state(self) -> dict:
        return {"args": {}, "attributes": {"seconds_before": round(self.seconds, 1)}}


class RecordedTraining(SafeCheckpoints):
    """A Trainer whose saved folders hold a training record and a model card.

    Args:
        record ([`TrainingRecord`], *optional*): what is known of data and earlier stages.
        **kwargs: arguments of `Trainer`.
    """

    def __init__(self, model, args, record: TrainingRecord | None = None, **kwargs):
        self.record = record or TrainingRecord()
        self.holds_best = False  # whether the best checkpoint's weights were loaded
        super().__init__(model, args, **kwargs)
        self.add_callback(StageClock())

    def _load_callback_state(self) -> None:
        super()._load_callback_state()
        # checkpoints of versions without a clock are resumed too
        self.state.stateful_callbacks.setdefault(StageClock.__name__, StageClock().state())

    def _load_best_model(self) -> None:
        super()._load_best_model()
        self.holds_best = True

    def prefixes(self) -> torch.LongTensor:
        """The items' codes without suffix, `[n_items, levels]`, that the record tells figures of."""
        raise NotImplementedError

    def tokenizer_spans(self) -> list[tuple[float, float]]:
        """Where the run trained the item tokenizer in turns with the recommender, from epoch to epoch."""
        return []

    def check_checkpoint(self, folder: str) -> None:
        """Also whether it is of this dataset, and of a run that reads it in this order.

        Raises:
            ValueError: it isn't; the first difference is named.
        """
        super().check_checkpoint(folder)
        saved = TrainingRecord.read(folder)
        for name, hashed in self.record.fingerprint.items():
            other = saved.fingerprint.get(name, hashed)  # unknown to a run from Python, or to an earlier version
            if other != hashed:
                raise ValueError(
                    f"the checkpoint {folder!r} is of another dataset: the fingerprint of its `{name}` is {other}, "
                    f"and here {hashed}; resume with the dataset of that run, streamed or not as it was there, or "
                    "start a new run."
                )
        stage = saved.stages[-1] if saved.stages else {}
        defaults = {field.name: field.default for field in dataclasses.fields(self.args)}
        ours = {"processes": self.args.world_size} | {name: getattr(self.args, name, None) for name in ORDERING}
        theirs = {"processes": stage.get("processes", self.args.world_size)} | {
            name: stage.get("arguments", {}).get(name, defaults.get(name)) for name in ORDERING
        }
        for name, value in ours.items():
            if stage and value != theirs[name]:
                raise ValueError(
                    f"`{name}` is {value} and in the checkpoint {folder!r} it is {theirs[name]}, so that its steps "
                    "read other samples; resume with that, or start a new run."
                )

    def record_now(self) -> TrainingRecord:
        """The record with this stage as it stands."""
        codes = code_diagnostics(self.prefixes().cpu(), self.model.config.codebook_size)
        stages = [*self.record.stages, self._stage()]
        return TrainingRecord(self.record.data, stages, codes, fingerprint=self.record.fingerprint)

    def _stage(self) -> dict:
        clock = next(callback for callback in self.callback_handler.callbacks if isinstance(callback, StageClock))
        logs = self.state.log_history
        losses: dict[str, float] = {}
        for entry in logs:  # the last value of each
            losses |= {name: value for name, value in entry.items() if name == "loss" or name.startswith("loss_")}
        step = self.state.best_global_step if self.holds_best else self.state.global_step  # of these weights
        validation = {
            name.removeprefix("eval_"): value
            for entry in logs
            if entry["step"] == step
            for name, value in entry.items()
            if "@" in name
        }
        return {
            "stage": self.stage,
            "data": self.record.data.get("source", "unknown"),
            "epochs": round(self.state.epoch or 0.0, 2),
            "steps": self.state.global_step,
            "seconds": round(clock.seconds),
            "device": describe_device(self.args.device),
            "processes": self.args.world_size,
            "seed": self.args.seed,
            "losses": losses,
            "validation": validation,
            "arguments": self._arguments(),
            "versions": versions(),
        }

    def _arguments(self) -> dict:
        """Training arguments that were set to something else than transformers' or this package's defaults."""
        values = self.args.to_dict()
        told = {}
        for field in dataclasses.fields(self.args):
            value = values.get(field.name)
            is_default = value == (False if field.default is None and isinstance(value, bool) else field.default)
            if field.init and not is_default and field.name not in UNTOLD and isinstance(value, SHOWN_TYPES):
                told[field.name] = value
        return told

    def _save(self, output_dir: str | None = None, state_dict=None) -> None:
        super()._save(output_dir, state_dict)
        if not self.args.should_save:
            return
        folder = output_dir or self.args.output_dir
        record = self.record_now()
        record.write(folder)
        write_model_card(folder, self.model.config, record, self.hub_model_id or self.args.output_dir)

    def create_model_card(self, *args, **kwargs) -> None:
        """Nothing more to do: the card was written with the model."""


def describe_device(device: torch.device) -> str:
    """The hardware that a run used, in words."""
    if device.type == "cuda":
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(device)}"
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
