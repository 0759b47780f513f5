"""Plans of runs from a log to a recommender: their stages, and how long these may take."""

from dataclasses import dataclass

from .presets import LogSize, fitted_preset

AUTO = "auto"
CHOICES = (AUTO, "best", "fast", "paper")
RESERVE = 0.9  # share of a time limit that a plan may use
TEXTS_PER_SECOND = 120  # of a small text encoder
# Seconds on 2 cores that compute in bfloat16: per training target of each of the two models, and more per item
PER_TARGET, PER_TARGET_AND_ITEM = 4.0e-4, 2.2e-8
# Seconds per item and epoch of the item tokenizer, and per evaluated user
PER_ITEM, PER_USER = 8.0e-5, 4.0e-3
CHOSEN_ON = 4_000  # validation users on whom settings of the search are chosen, at most
MEASURED_ON = 20_000  # test users, at most
TRIALS = 6  # settings of the search that are tried


@dataclass
class Stage:
    """A stage of a run from a log to a recommender.

    Args:
        name (`str`): the command of `etegrec` that does the same.
        folder (`str`): the folder that the stage writes, within the output folder.
        told (`str`): description of the stage, in words.
        values (`dict`): arguments of the command.
        seconds (`float`): how long the stage may take.
    """

    name: str
    folder: str
    told: str
    values: dict
    seconds: float


@dataclass
class Plan:
    """The stages of a run in their order, and what was left out for lack of time.

    Args:
        preset (`str`): the chosen preset.
        stages (`list[Stage]`): stages of the run.
        left_out (`list[str]`): what is left out, one sentence each.
    """

    preset: str
    stages: list[Stage]
    left_out: list[str]

    @property
    def seconds(self) -> float:
        """Returns how many seconds all stages may take."""
        return sum(stage.seconds for stage in self.stages)

    def stage(self, name: str) -> Stage | None:
        """Returns the stage of that name, if there is one."""
        return next((stage for stage in self.stages if stage.name == name), None)


def plan_for(size: LogSize, preset: str, time_limit: float | None, n_texts: int) -> Plan:
    """Plans a run.

    If the time is too short, trainings get fewer epochs, down to one. If that isn't enough, the collaborative model is
    left out.

    Args:
        size ([`LogSize`]): size of the log.
        preset (`str`): one of `CHOICES`; `"auto"` is `"best"` if there is enough time for it, else `"fast"`.
        time_limit (`float`, *optional*): seconds that are left.
        n_texts (`int`): number of items whose texts are embedded.

    Raises:
        ValueError: the preset isn't one of `CHOICES`.
    """
    planned = Plan(preset, stages_of(size, "best" if preset == AUTO else preset, n_texts), [])
    budget = None if time_limit is None else RESERVE * time_limit
    if preset == AUTO:
        planned.preset = "best"
        if budget is not None and planned.seconds > budget:
            planned = Plan("fast", stages_of(size, "fast", n_texts), [])
            planned.left_out.append("training in turns and finetuning (--preset best has both)")
    if budget is not None and planned.seconds > budget:
        shorten(planned, budget)
    return planned


def stages_of(size: LogSize, preset: str, n_texts: int) -> list[Stage]:
    """Returns the stages of a preset with their expected times."""
    values = fitted_preset(preset, size)
    per_target = PER_TARGET + PER_TARGET_AND_ITEM * size.n_items
    epoch = per_target * size.n_targets
    tokenizer_epochs = values["train-tokenizer"].get("num_train_epochs", 200)
    stages = [
        Stage(
            "embed",
            "collaborative",
            "embed items by the order in which users took them" + (", and by their texts" if n_texts else ""),
            values["embed"],
            epoch * values["embed"].get("num_train_epochs", 15) / 3 + n_texts / TEXTS_PER_SECOND,
        ),
        Stage(
            "train-tokenizer",
            "tokenizer",
            "train the item tokenizer, which turns embeddings into codes",
            values["train-tokenizer"],
            PER_ITEM * size.n_items * tokenizer_epochs,
        ),
    ]
    train = values["train"]
    is_frozen = train.get("freeze_tokenizer", False)
    stages.append(
        Stage(
            "train",
            "model" if is_frozen else "alternating",
            "train the recommender" if is_frozen else "train recommender and item tokenizer in turns",
            train,
            epoch * train.get("num_train_epochs", 1),
        )
    )
    if not is_frozen:
        finetune = values["finetune"]
        stages.append(
            Stage(
                "finetune", "model", "finetune the recommender", finetune, epoch * finetune.get("num_train_epochs", 1)
            )
        )
    chosen_on, measured_on = min(size.n_users, CHOSEN_ON), min(size.n_users, MEASURED_ON)
    stages.append(
        Stage(
            "evaluate",
            "evaluation.json",
            "choose settings of the search on validation users, and measure on test users",
            values["evaluate"],
            PER_USER * (measured_on + TRIALS * chosen_on),
        )
    )
    return stages


def shorten(plan: Plan, budget: float) -> None:
    """Gives the trainings of a plan fewer epochs, so that it fits into `budget` seconds if possible."""
    trainings = [stage for stage in plan.stages if stage.name != "evaluate"]
    fixed = plan.seconds - sum(stage.seconds for stage in trainings)
    share = max(budget - fixed, 0.0) / sum(stage.seconds for stage in trainings)
    for stage in trainings:
        planned = stage.values.get("num_train_epochs")
        if planned is None or stage.values.get("cycle"):  # alternating training is short already
            continue
        epochs = max(1, int(planned * share))
        stage.seconds *= epochs / planned
        stage.values["num_train_epochs"] = epochs
        plan.left_out.append(f"{planned - epochs} of {planned} epochs of `{stage.name}`")
