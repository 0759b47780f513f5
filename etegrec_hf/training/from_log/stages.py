"""The stages between a prepared dataset and a recommender, each with the arguments of a plan."""

import shutil
from dataclasses import fields

import yaml

from ...data.folders import replace_text
from ...data.prepared import PreparedDataset, set_semantic_embedding
from ...data.text_embeddings import embed_texts
from ...data.wording import counted
from ...evaluation.evaluate import EvaluateOptions
from ...hub.dataset_folder import load_with_embeddings
from ...hub.model_folder import load_model, load_recommender
from ...models.modeling_rqvae import RQVAEModel
from ..base.checkpoints import check_run_folder
from ..base.recording import record_of
from ..base.trainer import BaseTrainer
from ..collaborative.arguments import CollaborativeSizes, CollaborativeTrainingArguments
from ..collaborative.fit import embed_collaborative
from ..item_tokenizer.arguments import RQVAETrainingArguments
from ..item_tokenizer.fit import train_item_tokenizer, write_diagnostics
from ..item_tokenizer.options import ItemTokenizerOptions
from ..recommender.arguments import ETEGRecTrainingArguments, FinetuningArguments
from ..recommender.fit import RecommenderData, finetune_recommender, train_recommender
from ..recommender.options import RecommenderOptions
from ..recommender.trainer import ETEGRecTrainer
from .options import FitOptions
from .plan import RESERVE, Plan, Stage
from .run_state import RunState

# The dataclasses that hold the arguments of a stage, and the names of further arguments
ARGUMENTS: dict[str, tuple[type, ...]] = {
    "embed": (CollaborativeTrainingArguments, CollaborativeSizes),
    "train-tokenizer": (RQVAETrainingArguments, ItemTokenizerOptions),
    "train": (ETEGRecTrainingArguments, RecommenderOptions),
    "finetune": (FinetuningArguments,),
    "evaluate": (EvaluateOptions,),
}
OTHERS = ("eval_samples", "normalize", "text", "text_model")
LEAST_SECONDS = 1.0  # time that a training gets even if the time limit has passed


class Stages:
    """Runs the trainings of a plan.

    Args:
        run ([`RunState`]): the run, whose folder they write into.
        plan ([`Plan`]): the plan, with the arguments of the trainings.
        options ([`FitOptions`]): options of the run.
    """

    def __init__(self, run: RunState, plan: Plan, options: FitOptions):
        self.run, self.plan, self.options = run, plan, options
        self.pace = 1.0  # measured seconds divided by expected seconds, for the stage before
        self.first = 0  # update after which this call's training of the stage begins
        self.done = 1.0  # share of the planned updates that this call made of the stage
        self.trainers: list[ETEGRecTrainer] = []  # trainers of the recommender that ran in this call

    def embed(self, stage: Stage) -> None:
        """Trains collaborative embeddings, makes text embeddings, and combines both."""
        folder = self.run.path("data")
        names = ["collaborative"]
        if "text_model" in stage.values and self._embed_texts(folder, stage):
            names.append("text")
        args = self._arguments(CollaborativeTrainingArguments, stage)
        sizes = CollaborativeSizes(**chosen(CollaborativeSizes, stage.values))
        made = embed_collaborative(PreparedDataset.load(folder), folder, sizes, args).made
        self._note_updates(stage, made.get("updates_left_out", 0), made["trained_steps"], made["planned_steps"])
        set_semantic_embedding(folder, names, stage.values.get("normalize", "none"))

    def _embed_texts(self, folder: str, stage: Stage) -> bool:
        """Makes text embeddings, and returns whether there are any; the default model may be missing."""
        try:
            embed_texts(folder, stage.values["text_model"], stage.values.get("text", self.options.text))
        except (OSError, ValueError) as error:
            if self.options.text_model is not None:
                raise
            self.run.leave_out(f"embeddings of titles: {error}")
            return False
        return True

    def train_tokenizer(self, stage: Stage) -> None:
        """Trains the item tokenizer."""
        args = self._arguments(RQVAETrainingArguments, stage)
        data, embeddings = load_with_embeddings(self.run.path("data"))
        options = ItemTokenizerOptions(**chosen(ItemTokenizerOptions, stage.values))
        trainer = train_item_tokenizer(embeddings, options, args, record_of(data))
        write_diagnostics(trainer)
        self._tell_cut(stage, trainer)

    def train(self, stage: Stage) -> None:
        """Trains recommender and item tokenizer in turns, or only the recommender."""
        args = self._arguments(ETEGRecTrainingArguments, stage)
        data, _ = load_with_embeddings(self.run.path("data"))
        source = self.run.path("tokenizer")
        options = RecommenderOptions(**chosen(RecommenderOptions, stage.values))
        item_tokenizer, evaluated = load_model(RQVAEModel, source), self._evaluated(data, stage)
        self.trainers.append(train_recommender(item_tokenizer, evaluated, options, args, record_of(data, source)))
        self._tell_cut(stage, self.trainers[-1])

    def finetune(self, stage: Stage) -> None:
        """Finetunes the recommender on fixed codes."""
        args = self._arguments(FinetuningArguments, stage)
        data, _ = load_with_embeddings(self.run.path("data"))
        source = self.run.path("alternating")
        model, tokenizer = load_recommender(source)
        evaluated = self._evaluated(data, stage)
        self.trainers.append(finetune_recommender(model, tokenizer, evaluated, args, record_of(data, source)))
        self._tell_cut(stage, self.trainers[-1])

    def timed(self, stage: Stage, seconds: float) -> None:
        """Notes how long a stage took, for the times of later stages."""
        expected = stage.work * self.done + stage.fixed + stage.texts
        if expected > 2:  # shorter stages tell little
            self.pace = seconds / expected

    @property
    def waiting(self) -> list[Stage]:
        """Returns the stages that haven't ended."""
        return [stage for stage in self.plan.stages if not self.run.has_ended(stage.name)]

    @property
    def least_seconds(self) -> float:
        """Returns how many seconds the stages to come need besides their updates and searches, at the speed so far."""
        return max(self.pace, 1.0) * sum(stage.fixed for stage in self.waiting)

    def seconds_for(self, stage: Stage) -> float | None:
        """Returns how many seconds the updates or searches of a stage may take, or `None` without a time limit.

        What else the stages to come need is kept free, and the rest is shared by the work that they have. A part of
        the time that is left isn't shared, in case the machine becomes slower.
        """
        if self.run.seconds_left is None:
            return None
        share = stage.work / sum(other.work for other in self.waiting)
        return max((RESERVE * self.run.seconds_left - self.least_seconds) * share, LEAST_SECONDS)

    def _tell_cut(self, stage: Stage, trainer: BaseTrainer) -> None:
        self._note_updates(stage, trainer.updates_left_out, trainer.state.global_step, trainer.state.max_steps)

    def _note_updates(self, stage: Stage, n_updates: int, last: int, planned: int) -> None:
        """Notes which share of the planned updates this call made, and tells how many had no time."""
        self.done = (last - self.first) / planned
        if n_updates:
            self.run.leave_out(f"the last {counted(n_updates, 'update')} of `{stage.name}`, for lack of time")

    def _evaluated(self, data: PreparedDataset, stage: Stage) -> RecommenderData:
        return RecommenderData(data, eval_samples=stage.values.get("eval_samples"))

    def _arguments(self, cls: type, stage: Stage):
        """Returns the arguments of a training, which is resumed from its newest checkpoint if there is one.

        With a time limit, the training gets its share of the seconds that are left. If the stage before took longer
        than expected, a training that begins gets fewer epochs, so that its learning rate falls to the end in time.
        """
        folder = self.run.folder / stage.folder
        resume = any(folder.glob("checkpoint-*"))
        if not resume:
            shutil.rmtree(folder, ignore_errors=True)  # remains of an interrupted call
        seconds = self.seconds_for(stage)
        if seconds is not None and stage.folder == "model" and not resume:
            self._shorten(stage, seconds / (stage.work * self.pace))
        values = chosen(cls, stage.values) | ({} if seconds is None else {"max_seconds": seconds})
        args = cls(str(folder), **values)
        check_run_folder(args, resume)
        self.first = int(args.resume_from_checkpoint.rsplit("-")[-1]) if resume else 0
        return args

    def _shorten(self, stage: Stage, share: float) -> None:
        """Leaves only this share of a stage's epochs, at least one, also for calls that resume the stage."""
        planned = stage.values.get("num_train_epochs", 1)
        epochs = max(1, int(planned * share))
        if epochs >= planned:
            return
        stage.work *= epochs / planned
        stage.values["num_train_epochs"] = epochs
        path = self.run.folder / f"{stage.name}.yaml"
        command = path.read_text(encoding="utf-8").partition("\n")[0]
        text = f"{command}\n{yaml.safe_dump(stage.values, sort_keys=False)}"
        replace_text(path, text)
        self.run.leave_out(
            f"{planned - epochs} of {planned} epochs of `{stage.name}`, because earlier stages took longer"
        )


def names_of(stage: str) -> list[str]:
    """Returns the names of the arguments that a stage's YAML file may give."""
    return [*(field.name for cls in ARGUMENTS[stage] for field in fields(cls) if field.init), *OTHERS]


def chosen(cls: type, values: dict) -> dict:
    """Returns those of a stage's arguments that a dataclass has."""
    return {field.name: values[field.name] for field in fields(cls) if field.init and field.name in values}
