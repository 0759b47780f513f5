"""The last stage of a run chooses settings of the search, measures the recommender, and writes the report."""

import json
import os
from dataclasses import replace

import numpy as np

from ...data.folders import replace_text
from ...data.prepared import PreparedDataset, Split
from ...evaluation.choose_settings import ChosenSettings, choose_settings
from ...evaluation.collaborative import load_collaborative_model
from ...evaluation.evaluate import EvaluateOptions, evaluate
from ...evaluation.rounds import rounds_in_time
from ...hub.model_folder import load_recommender, record_evaluation, save_search_settings
from ...hub.report import FILE as REPORT
from ...models.modeling_etegrec import ETEGRecForConditionalGeneration
from ...models.tokenization_etegrec import ETEGRecTokenizer
from ..base.run_report import write_run_report
from .plan import CHOSEN_ON, MEASURED_ON, TRIALS, Stage
from .presets import LogSize
from .run_state import RunState
from .stages import Stages, chosen
from .verdict import verdict

RESULTS = "metrics.json"
RARE = 0.01  # lists leave out a user's items if fewer than this share of next items are such items


def measure(run: RunState, stage: Stage, stages: Stages) -> None:
    """Chooses settings of the search on validation users, measures the model on test users, and writes the report.

    With a time limit, they are as many users as there is time for; the run says how many.
    """
    model, tokenizer = load_recommender(run.path("model"))
    data = PreparedDataset.load(run.path("data"))
    excludes = share_of_repeats(data.validation) < RARE
    if excludes:
        run.tell("lists leave out items that the user had before, because users hardly ever take an item again")
    values = chosen(EvaluateOptions, stage.values) | {"exclude_seen": excludes}
    some = replace(data, validation=drawn(data.validation, CHOSEN_ON), test=drawn(data.test, MEASURED_ON))
    if len(some.test) < len(data.test):
        run.tell(f"metrics are measured on {len(some.test):,} of {len(data.test):,} test users, drawn at random")
    seconds = stages.seconds_for(stage)
    found, n_chosen = choose_in_time(model, tokenizer, some, EvaluateOptions(split="validation", **values), seconds)
    save_search_settings(run.path("model"), found.settings)
    model, tokenizer = load_recommender(run.path("model"))
    rival = load_collaborative_model(run.path("collaborative"), data)
    evaluation = evaluate(model, tokenizer, some, EvaluateOptions(**values), rival, stages.seconds_for(stage))
    unmeasured = []
    for done, split, told in (
        (n_chosen, some.validation, "validation users on whom settings are chosen"),
        (evaluation.protocol["users"], some.test, "test users on whom figures are measured"),
    ):
        if done < len(split):
            unmeasured.append(f"{len(split) - done:,} of {len(split):,} {told}, for lack of time")
            run.tell(f"left out: {unmeasured[-1]}")
    record = record_evaluation(run.path("model"), model.config, evaluation)
    report = run.path(f"model/{REPORT}")
    if stages.trainers:  # else they ran in an earlier call, whose report is kept
        *earlier, last = stages.trainers
        report = str(write_run_report(last, data, last.eval_dataset, run.folder, tuple(earlier), evaluation))
    remedies = remedies_for(run.known["left_out"] + unmeasured)
    sentence, tries = verdict(evaluation, LogSize.of(data), remedies)
    results = {
        "test": evaluation.metrics,
        "verdict": sentence,
        "tries": tries,
        "settings": found.settings,
        "tried": found.tried,
        "unmeasured": unmeasured,
        "report": os.path.relpath(report, run.folder),  # relative, because the run's folder may be moved
        "seeds": record.seeds(),
        **{name: value for name, value in evaluation.figures().items() if name not in ("split", "metrics")},
    }
    text = json.dumps(results, indent=2) + "\n"
    replace_text(run.folder / RESULTS, text)


def remedies_for(left_out: list[str]) -> list[str]:
    """Returns what to try next after a run that left something out; reasons after a colon aren't repeated.

    >>> remedies_for(["embeddings of titles: 'a/b' can't be loaded", "2 epochs, for lack of time"])
    ['run it again, in another folder, with what was left out: embeddings of titles; 2 epochs, for lack of time']
    >>> remedies_for([])
    []
    """
    told = "; ".join(sentence.partition(": ")[0] for sentence in left_out)
    return [f"run it again, in another folder, with what was left out: {told}"] if told else []


def choose_in_time(
    model: ETEGRecForConditionalGeneration,
    tokenizer: ETEGRecTokenizer,
    data: PreparedDataset,
    options: EvaluateOptions,
    seconds: float | None,
) -> tuple[ChosenSettings, int]:
    """Chooses settings on as many validation users as there is time for.

    Args:
        model, tokenizer, data, options: as in [`choose_settings`].
        seconds (`float`, *optional*): time for choosing on the validation split and measuring on the test split.

    Returns:
        the choice, and the number of users on whom it was made.
    """
    n_searches = TRIALS * len(data.validation)
    share = n_searches / (n_searches + len(data.test))
    parts, n_users = [], []
    for rows in rounds_in_time(len(data.validation), None if seconds is None else share * seconds):
        part = replace(data, validation=data.validation.take(rows))
        parts.append(choose_settings(model, tokenizer, part, options))
        n_users.append(len(rows))
    return ChosenSettings.joined(parts, n_users), sum(n_users)


def drawn(split: Split, most: int) -> Split:
    """Returns a split, or `most` of its rows, drawn at random, if it has more.

    >>> split = Split(["a", "b", "c"], np.array([1, 2, 3, 4, 5, 6]), np.array([0, 2, 4, 6]))
    >>> drawn(split, 3) is split, len(drawn(split, 2)), drawn(split, 2).user_ids
    (True, 2, ['a', 'c'])
    """
    if len(split) <= most:
        return split
    return split.take(np.sort(np.random.default_rng(0).permutation(len(split))[:most]))


def share_of_repeats(split: Split) -> float:
    """Returns the share of a split's targets that the user had before.

    >>> share_of_repeats(Split(["a", "b"], np.array([1, 2, 1, 3, 4]), np.array([0, 3, 5])))
    0.5
    """
    rows, items = split.histories
    again = items == split.targets[rows]
    return len(np.unique(rows[again])) / max(len(split), 1)
