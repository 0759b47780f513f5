"""Plans of runs from a log to a recommender: their stages, and how long these may take."""

from dataclasses import dataclass

from .presets import LogSize, fitted_preset

AUTO = "auto"
CHOICES = (AUTO, "best", "fast", "paper")
RESERVE = 0.9  # share of a time limit that a plan may use
TEXTS_PER_SECOND = 120  # of a small text encoder
# Seconds on 2 cores that compute in bfloat16: per training target of each of the two models, and more per item
PER_TARGET, PER_TARGET_AND_ITEM = 4.0e-4, 2.2e-8
# Seconds of the item tokenizer: per item and epoch, and per item for its first codebooks and its codes
PER_ITEM, PER_ITEM_ONCE = 8.0e-5, 2.0e-4
# Seconds per user: of a search, and more per item; and of all baselines, and more per item. Those per item are
# estimates: measured on a busy machine they were larger. The pace of a run corrects them.
PER_SEARCH, PER_SEARCH_AND_ITEM = 4.0e-3, 4.0e-7
PER_BASELINES, PER_BASELINES_AND_ITEM = 1.0e-3, 1.0e-7
START_AND_REPORT = 3.0  # seconds of a stage besides its work
CHOSEN_ON = 4_000  # validation users on whom settings of the search are chosen, at most
MEASURED_ON = 20_000  # test users, at most
TRIALS = 6  # searches per user on whom settings are chosen
# If there is too little time: share of it for choosing and measuring, share for an evaluation while training, and the
# fewest users of such an evaluation
SEARCHES, EVALUATION, FEWEST = 0.25, 0.05, 128


@dataclass
class Stage:
    """A stage of a run from a log to a recommender.

    Args:
        name (`str`): the command of `etegrec` that does the same.
        folder (`str`): the folder that the stage writes, within the output folder.
        told (`str`): description of the stage, in words.
        values (`dict`): arguments of the command.
        work (`float`): how many seconds its updates or searches may take; a time limit makes them fewer.
        fixed (`float`): how many seconds a last evaluation, baselines and a report may take.
        texts (`float`): how many seconds embeddings of texts may take, which are made first.
    """

    name: str
    folder: str
    told: str
    values: dict
    work: float
    fixed: float = START_AND_REPORT
    texts: float = 0.0

    @property
    def seconds(self) -> float:
        """Returns how many seconds the stage may take."""
        return self.work + self.fixed + self.texts


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

    @property
    def least_seconds(self) -> float:
        """Returns how many seconds of the run no time limit makes fewer."""
        return sum(stage.seconds - stage.work * ("cycle" not in stage.values) for stage in self.stages)

    def stage(self, name: str) -> Stage | None:
        """Returns the stage of that name, if there is one."""
        return next((stage for stage in self.stages if stage.name == name), None)


def plan_for(size: LogSize, preset: str, time_limit: float | None, n_texts: int) -> Plan:
    """Plans a run.

    If the time is too short, choosing and measuring get a quarter of it, and trainings get fewer epochs, down to one.

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
        shorten(planned, budget, size)
    return planned


def per_user(size: LogSize) -> tuple[float, float]:
    """Returns the seconds per user of a search of the model, and of the lists of all baselines."""
    search, baselines = PER_SEARCH_AND_ITEM * size.n_items, PER_BASELINES_AND_ITEM * size.n_items
    return PER_SEARCH + search, PER_BASELINES + baselines


def stages_of(size: LogSize, preset: str, n_texts: int) -> list[Stage]:
    """Returns the stages of a preset with their expected times."""
    values = fitted_preset(preset, size)
    ensemble = values["train"].get("item_ensemble", 1)
    epoch, recommender_epoch = (
        (PER_TARGET + PER_TARGET_AND_ITEM * n_scores) * size.n_targets
        for n_scores in (size.n_items, ensemble * size.n_items)
    )
    search, baselines = per_user(size)
    tokenizer_epochs = values["train-tokenizer"].get("num_train_epochs", 200)
    stages = [
        Stage(
            "embed",
            "collaborative",
            "embed items by the order in which users took them" + (", and by their texts" if n_texts else ""),
            values["embed"],
            epoch * values["embed"].get("num_train_epochs", 15) / 3,
            START_AND_REPORT + baselines * size.n_users,
            n_texts / TEXTS_PER_SECOND,
        ),
        Stage(
            "train-tokenizer",
            "tokenizer",
            "train the item tokenizer, which turns embeddings into codes",
            values["train-tokenizer"],
            PER_ITEM * size.n_items * tokenizer_epochs,
            START_AND_REPORT + PER_ITEM_ONCE * size.n_items,
        ),
    ]
    is_frozen = values["train"].get("freeze_tokenizer", False)
    told = "train the recommender" if is_frozen else "train recommender and item tokenizer in turns"
    recommenders = [("train", "model" if is_frozen else "alternating", told)]
    if not is_frozen:
        recommenders.append(("finetune", "model", "finetune the recommender"))
    for name, folder, told in recommenders:
        arguments = values[name]
        evaluated = min(size.n_users, arguments.get("eval_samples", size.n_users))
        fixed = START_AND_REPORT + (search + baselines) * evaluated
        work = recommender_epoch * arguments.get("num_train_epochs", 1)
        stages.append(Stage(name, folder, told, arguments, work, fixed))
    chosen_on, measured_on = min(size.n_users, CHOSEN_ON), min(size.n_users, MEASURED_ON)
    stages.append(
        Stage(
            "evaluate",
            "evaluation.json",
            "choose settings of the search on validation users, and measure on test users",
            values["evaluate"],
            search * (measured_on + TRIALS * chosen_on),
            START_AND_REPORT + baselines * (measured_on + chosen_on),
        )
    )
    return stages


def shorten(plan: Plan, budget: float, size: LogSize) -> None:
    """Gives a plan fewer users to search for, and its trainings fewer epochs, to fit into `budget` seconds."""
    limit_searches(plan, budget)
    trainings = [stage for stage in plan.stages if stage.name != "evaluate"]
    seconds = sum(per_user(size))
    for stage in trainings:
        evaluated = min(stage.values.get("eval_samples", 0), size.n_users)
        most = max(int(EVALUATION * budget / seconds), FEWEST)
        if evaluated > most:
            stage.fixed -= (evaluated - most) * seconds
            stage.values["eval_samples"] = most
            plan.left_out.append(f"{evaluated - most:,} of {evaluated:,} users of each evaluation in `{stage.name}`")
    works = sum(stage.work for stage in trainings)
    share = max(budget - (plan.seconds - works), 0.0) / works
    if share >= 1:
        return
    for stage in trainings:
        planned = stage.values.get("num_train_epochs")
        if planned is None or stage.values.get("cycle"):  # alternating training is short already
            continue
        epochs = max(1, int(planned * share))
        stage.work *= epochs / planned
        stage.values["num_train_epochs"] = epochs
        if epochs < planned:
            plan.left_out.append(f"{planned - epochs} of {planned} epochs of `{stage.name}`")


def limit_searches(plan: Plan, budget: float) -> None:
    """Gives choosing and measuring at most their share of `budget` seconds; they then take fewer users."""
    for stage in plan.stages:
        if stage.name == "evaluate" and plan.seconds > budget:
            stage.work = min(stage.work, SEARCHES * budget)
