"""Results in the Hub's own format, which the pages of the model and of the evaluated dataset show."""

import re
from pathlib import Path

import yaml
from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

from ..data.folders import replace_text
from .training_record import TrainingRecord

EVAL_RESULTS = ".eval_results/etegrec_hf.yaml"
COMMIT = r"[0-9a-f]{40}"


def dataset_of(record: TrainingRecord, evaluation: dict) -> str | None:
    """Returns the Hub's id of the dataset that was evaluated, maybe with a revision; `None` without an id.

    The id of the training data stands for an evaluation on that data alone.
    """
    return evaluation.get("dataset") or (
        record.data.get("hub_id") if is_of_training_data(record, evaluation) else None
    )


def is_of_training_data(record: TrainingRecord, evaluation: dict) -> bool:
    """Returns whether hashes say that an evaluation is of the training data.

    The items must be the same, and so must the training sequences or the split. Sequences that were streamed have
    another hash in the record, and a sample of a split has another hash than the whole.
    """
    own, measured = record.fingerprint, evaluation.get("protocol", {}).get("data", {})
    same = {name for name in own.keys() & measured.keys() if own[name] == measured[name]}
    return "items" in same and bool(same & {"train", evaluation["split"]})


def write_eval_results(folder: str | Path, record: TrainingRecord) -> None:
    """Writes a model's results on datasets of the Hub into `.eval_results`; without results the file is removed.

    A metric of a split is a task of the dataset, like `test_ndcg_at_10`. A revision is written if it is a commit.

    Args:
        folder (`str` or `Path`): folder of the model.
        record ([`TrainingRecord`]): record of the model's training, with evaluations.
    """
    entries = []
    for evaluation in record.evaluations:
        dataset = dataset_of(record, evaluation)
        if dataset is None:
            continue
        repo_id, _, revision = dataset.partition("@")
        for metric, value in evaluation["metrics"].items():
            entries.append(
                EvalResultEntry(
                    dataset_id=repo_id,
                    task_id=f"{evaluation['split']}_{metric.replace('@', '_at_')}",
                    value=value,
                    dataset_revision=revision if re.fullmatch(COMMIT, revision) else None,
                    date=evaluation.get("date"),
                    notes=", ".join(f"{name}: {told}" for name, told in evaluation.get("protocol", {}).items())
                    or None,
                )
            )
    path = Path(folder, EVAL_RESULTS)
    if not entries:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(exist_ok=True)
    text = yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False, allow_unicode=True)
    replace_text(path, text)
