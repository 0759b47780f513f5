"""Training of a recommender from an interaction log in one call."""

import json
import math
import shlex
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from transformers import pipeline

from ...data.config_file import read_config
from ...data.folders import replace_text, sole_use
from ...data.prepare import note_of_order, prepare
from ...data.prepared import PreparedDataset
from ...data.progress import bars_hidden
from ...data.sources import SourceOptions
from ...data.sources.contents import contents_of
from ...data.text_embeddings import check_texts
from ...data.wording import counted
from .measure import RESULTS, measure
from .options import TEXT_MODEL, FitOptions
from .plan import (
    AUTO,
    RESERVE,
    TEXTS_PER_SECOND,
    Plan,
    Stage,
    limit_searches,
    plan_for,
)
from .presets import LogSize
from .run_state import RunState
from .stages import Stages, names_of

MOST_FOR_TEXTS = 0.25  # titles are embedded if that takes at most this share of the time limit


@dataclass(frozen=True)
class FitResult:
    """The result of [`fit`].

    Args:
        folder (`str`): folder of the run, with all files.
        model (`str`): folder of the recommender, for `pipeline`, `etegrec recommend` and `etegrec push`.
        metrics (`dict[str, float]`): metrics of the recommender on the test split.
        baselines (`dict[str, dict[str, float]]`): metrics of simpler systems on the same split.
        verdict (`str`): a sentence that compares the recommender with these systems.
        tries (`list[str]`): what to try next, if the recommender isn't above all of these systems.
        left_out (`list[str]`): what the run left out, and why.
        report (`str`): path of an HTML page with curves, codes and samples.
    """

    folder: str
    model: str
    metrics: dict[str, float]
    baselines: dict[str, dict[str, float]]
    verdict: str
    tries: list[str]
    left_out: list[str]
    report: str

    def recommend(self, histories: list[list[str]], **options: Any) -> list[list[dict]]:
        """Recommends items for histories of item ids, with the model's pipeline and its options."""
        recommender = pipeline("sequential-recommendation", model=self.model, trust_remote_code=True)
        return recommender(histories, **options)


def fit(
    log: Any,
    output_dir: str | Path,
    options: FitOptions | None = None,
    reading: SourceOptions | None = None,
    format: str = "auto",
    tell: Callable[[str], object] = print,
) -> FitResult:
    """Makes a recommender from an interaction log.

    The log is prepared, items are embedded, and item tokenizer and recommender are trained. Settings of the search are
    chosen on validation users, and metrics are measured on test users. If a call is interrupted, the same call resumes
    it; only the time limit may differ. Each stage writes a folder, and a YAML file that repeats the stage by hand.

    Args:
        log (`str`, `Path` or a table): the log, as in [`prepare`].
        output_dir (`str` or `Path`): a new folder, or the folder of an earlier call.
        options ([`FitOptions`], *optional*): options of the run; by default all have their defaults.
        reading ([`SourceOptions`], *optional*): how the log is read.
        format (`str`, *optional*, defaults to `"auto"`): format of the log.
        tell (`Callable`, *optional*): function that is called with each message about progress; by default messages
            are printed.

    Returns:
        [`FitResult`]: paths, metrics and verdict.

    Raises:
        FileExistsError: `output_dir` holds something else, a run of another log, or a run with other arguments.
        FileExistsError: another call is working in `output_dir`.
        ValueError: as [`prepare`] and the trainings.
    """
    options, reading = options or FitOptions(), reading or SourceOptions()
    asked = asked_of(log, format, options, reading)
    is_new = not Path(output_dir).exists()
    with sole_use(output_dir) as folder, bars_hidden():
        run = RunState(folder, asked, tell, options.seconds)
        try:
            return go_on(run, log, format, options, reading)
        finally:
            if is_new and not run.known["ended"]:  # the log couldn't be read
                shutil.rmtree(folder)


def go_on(run: RunState, log: Any, format: str, options: FitOptions, reading: SourceOptions) -> FitResult:
    """Runs the stages that haven't ended yet, and returns the result."""
    tell = run.tell
    if not (run.folder / RESULTS).is_file():
        run.known["ended"].pop("evaluate", None)
    if run.known["ended"]:
        tell(f"going on after {', '.join(run.known['ended'])}")
    if not run.has_ended("prepare"):
        prepare_log(run, log, format, options, reading)
    data = PreparedDataset.load(run.path("data"))
    plan = plan_of_run(run, data, options)
    stages = Stages(run, plan, options)
    for number, stage in enumerate(plan.stages, start=2):
        if run.has_ended(stage.name):
            continue
        left = math.inf if run.seconds_left is None else run.seconds_left
        seconds = max(min(stage.seconds * stages.pace, left), stage.fixed * stages.pace)
        tell(f"{number}/{len(plan.stages) + 1} {stage.told} (about {in_words(seconds)})")
        if stages.least_seconds > left:
            tell(
                f"the time limit is too short for this machine: the rest takes about {in_words(stages.least_seconds)}"
            )
        start = time.monotonic()
        if stage.name == "evaluate":
            measure(run, stage, stages)
        else:
            getattr(stages, stage.name.replace("-", "_"))(stage)
        seconds = time.monotonic() - start
        stages.timed(stage, seconds)
        run.end(stage.name, seconds)
    result = json.loads((run.folder / RESULTS).read_text(encoding="utf-8"))
    return FitResult(
        str(run.folder),
        run.path("model"),
        result["test"],
        result["baselines"],
        result["verdict"],
        result["tries"],
        run.known["left_out"] + result.get("unmeasured", []),  # runs of earlier versions lack it
        run.path(result["report"]),
    )


def asked_of(log: Any, format: str, options: FitOptions, reading: SourceOptions) -> dict[str, Any]:
    """Returns what identifies a run: the log and all arguments but the time limit, as JSON stores them."""
    asked = {"log": contents_of(log), "format": format} | asdict(options) | asdict(reading)
    if reading.items is not None:
        asked["items"] = contents_of(reading.items)
    del asked["time_limit"]
    return json.loads(json.dumps(asked, default=str))


def prepare_log(run: RunState, log: Any, format: str, options: FitOptions, reading: SourceOptions) -> None:
    """Writes the prepared dataset, with embeddings from counts of items."""
    start = time.monotonic()
    shutil.rmtree(run.folder / "data", ignore_errors=True)  # left by a call that ended before it made a plan
    statistics = prepare(
        log,
        format=format,
        output_dir=run.folder / "data",
        min_count=options.min_count,
        split=options.split,
        embedding="cooccurrence",
        options=reading,
        license=options.license,
        seed=options.seed,
    )
    run.tell(
        f"{counted(statistics['users'], 'user')}, {counted(statistics['items'], 'item')}, "
        f"{counted(statistics['interactions'], 'interaction')} of {statistics['interactions_read']:,} that were read "
        f"(format {statistics['format']})"
    )
    users, items = statistics["users_read"] - statistics["users"], statistics["items_read"] - statistics["items"]
    if users or items:
        run.tell(
            f"note: {counted(users, 'user')} and {counted(items, 'item')} have fewer than "
            f"{counted(options.min_count, 'interaction')} (--min-count), or too few for three splits, and are left out"
        )
    if "columns" in statistics:
        run.tell(f"columns: {statistics['columns']}")
    if statistics["item_columns"] != "none":
        run.tell(f"item columns: {statistics['item_columns']}")
    order = note_of_order(statistics)
    for note in (*([order] if order else []), *statistics["malformed"], *statistics["notes"]):
        run.tell(f"note: {note}")
    run.end("prepare", time.monotonic() - start)


def plan_of_run(run: RunState, data: PreparedDataset, options: FitOptions) -> Plan:
    """Returns the plan of an earlier call, or makes, prints and writes a new plan."""
    size = LogSize.of(data)
    if "preset" in run.known:  # trainings are resumed with the arguments of their first call
        plan = plan_for(size, run.known["preset"], None, run.known["has_texts"] * data.n_items)
        for stage in plan.stages:
            if not run.has_ended(stage.name):
                planned = stage.values.get("num_train_epochs", 1)
                stage.values = read_config(Path(run.path(f"{stage.name}.yaml")), names_of(stage.name))
                stage.work *= stage.values.get("num_train_epochs", 1) / planned
        if run.seconds_left is not None:
            waiting = [stage for stage in plan.stages if not run.has_ended(stage.name)]
            limit_searches(Plan(plan.preset, waiting, []), RESERVE * run.seconds_left)
        return plan
    n_texts = count_texts(run, data, options)
    plan = plan_for(size, options.preset, run.seconds_left, n_texts)
    run.tell(
        f"preset {plan.preset}, {size.n_targets:,} next items to learn from: it may take {in_words(plan.seconds)} "
        "on 2 cores"
    )
    for sentence in plan.left_out:
        run.leave_out(f"{sentence}, for lack of time")
    whole = plan_for(size, "best" if options.preset == AUTO else options.preset, None, n_texts)
    if plan.stages[-1].work < whole.stages[-1].work:
        run.tell("settings may be chosen on fewer users, and figures be of fewer users, for lack of time")
    if plan.left_out or plan.seconds < whole.seconds:
        run.tell(f"all of preset {whole.preset} needs a time limit of about {in_words(whole.seconds / RESERVE)}")
    if run.seconds_left is not None and plan.least_seconds > run.seconds_left:
        run.tell(
            f"even the shortest training may take longer than the time limit, about {in_words(plan.least_seconds)}"
        )
    if n_texts:
        plan.stages[0].values |= {"text_model": options.text_model or TEXT_MODEL, "text": options.text}
    for stage in plan.stages:
        if stage.name != "evaluate":
            stage.values["seed"] = options.seed
        text = f"# etegrec {by_hand(run, stage)}\n" + yaml.safe_dump(stage.values, sort_keys=False)
        replace_text(Path(run.path(f"{stage.name}.yaml")), text)
    run.known |= {"preset": plan.preset, "has_texts": n_texts > 0}
    run.write()
    return plan


def count_texts(run: RunState, data: PreparedDataset, options: FitOptions) -> int:
    """Returns how many items have texts that will be embedded; wrong options are errors here, before the plan."""
    names_text = options.text != FitOptions.text
    if options.text_model == "none":
        if names_text:
            raise ValueError(f"`text` is {options.text!r}, but has no effect with `text_model` 'none'; leave one out.")
        return 0
    if options.text_model is not None:
        check_texts(run.path("data"), options.text_model, options.text)
        return data.n_items
    titled = data.n_items if names_text else len(data.title_of)
    if titled < data.n_items / 2:
        if titled:
            run.tell(f"note: titles aren't embedded, as only {titled:,} of {data.n_items:,} items have one")
        return 0
    if find_spec("sentence_transformers") is None:
        run.leave_out("embeddings of titles, which need `pip install 'etegrec_hf[text]'`")
        return 0
    if run.seconds_left is not None and titled / TEXTS_PER_SECOND > MOST_FOR_TEXTS * run.seconds_left:
        run.leave_out("embeddings of titles, for lack of time")
        return 0
    check_texts(run.path("data"), None, options.text)
    return titled


def by_hand(run: RunState, stage: Stage) -> str:
    """Returns the command that repeats a stage."""
    data, config = quoted(run, "data"), f"--config {quoted(run, f'{stage.name}.yaml')}"
    given = {
        "embed": f"{data} {config} --collaborative --output-dir NEW",
        "train-tokenizer": f"{data} {config} --output-dir NEW",
        "train": f"{data} {config} --tokenizer {quoted(run, 'tokenizer')} --output-dir NEW",
        "finetune": f"{quoted(run, 'alternating')} {config} --data {data} --output-dir NEW",
        "evaluate": f"{quoted(run, 'model')} {config} --data {data} --output NEW.json",
    }
    return f"{stage.name} {given[stage.name]}"


def quoted(run: RunState, name: str) -> str:
    """Returns the path of a run's file or folder, quoted for a shell."""
    return shlex.quote(run.path(name))


def in_words(seconds: float) -> str:
    """Returns a time in words.

    >>> in_words(0.4), in_words(40), in_words(400), in_words(9000)
    ('1 second', '40 seconds', '7 minutes', '2.5 hours')
    """
    if seconds < 90:
        return counted(max(1, round(seconds)), "second")
    return f"{round(seconds / 60)} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
