"""Model cards that show everything in a training record."""

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from transformers import PreTrainedConfig

from ..data.folders import replace_text
from ..evaluation.memorisation import part_title, systems_of_part
from ..evaluation.metrics import OURS, shown_name
from ..models.model_card import METADATA, card_text, written_settings
from ..models.search_options import SearchSettings
from .eval_results import dataset_of
from .training_record import TrainingRecord

SHOWN = ("recall@1", "recall@5", "recall@10", "recall@50", "ndcg@5", "ndcg@10")
LOSSES = {
    "loss_vq": "the item tokenizer",
    "loss_code": "the next item's codes",
    "loss_item": "the item logits, which score whole items",
    "loss_sia": "the alignment of histories and items (SIA)",
    "loss_psa": "the alignment of preferences and embeddings (PSA)",
}
CELL_LENGTH = 200  # characters of a value beyond which it is cut


def write_model_card(
    folder: str | Path,
    config: PreTrainedConfig,
    record: TrainingRecord,
    name: str,
    license: str | None = None,
) -> None:
    """Writes `README.md`, the model card, into a model's folder, whole or not at all.

    Args:
        folder (`str` or `Path`): folder of the model; the card's example recommends for an item of `item_index.json`.
        config ([`ETEGRecConfig`] or [`RQVAEConfig`]): configuration of the model.
        record ([`TrainingRecord`]): record of the model's training.
        name (`str`): name that loads the model: an id on the Hub, or the folder's path.
        license (`str`, *optional*): license, as the Hub abbreviates it; by default the earlier card's.

    Raises:
        ValueError: see [`license_in`].
    """
    index = Path(folder, "item_index.json")
    ids = json.loads(index.read_text(encoding="utf-8")) if index.exists() else {}
    example = next((item_id for item_id in ids if "`" not in item_id), None)  # backticks would end the code block
    if license is None:
        license = license_in(folder)
    text = card_text(
        config,
        name,
        metadata=metadata(config, record, Path(name).name, license),
        sections=sections(config, record),
        **({"example": example} if example else {}),
    )
    replace_text(Path(folder, "README.md"), text)


def license_in(folder: str | Path) -> str | None:
    """Returns the license that the card in a model's folder names; `None` without a license or a card.

    Raises:
        ValueError: the card's metadata is damaged.
    """
    path = Path(folder, "README.md")
    return read_card_data(path).license if path.exists() else None


def read_card_data(path: str | Path) -> ModelCardData:
    """Reads the metadata of a model's card.

    Raises:
        ValueError: the card's metadata is damaged.
    """
    try:
        return ModelCard.load(path).data
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(
            f"the metadata of {path} is damaged ({str(error).splitlines()[0]}); mend the lines between its first two "
            "`---`, or remove the file: it is written anew, without its license."
        ) from error


def metadata(config: PreTrainedConfig, record: TrainingRecord, model_name: str, license: str | None = None) -> str:
    """Returns the card's YAML: what is the same for all such models, the dataset, and every measured metric."""
    results = []
    source = str(record.data.get("source", "unknown"))
    for evaluation in record.evaluations:
        repo_id = (dataset_of(record, evaluation) or "").partition("@")[0]
        for metric, value in evaluation["metrics"].items():
            results.append(
                EvalResult(
                    task_type="other",
                    task_name="Sequential recommendation",
                    dataset_type=repo_id or re.sub(r"[^\w.-]+", "-", source).lower(),
                    dataset_name=source,
                    dataset_split=evaluation["split"],
                    metric_type=metric,
                    metric_name=shown_name(metric),
                    metric_value=value,
                )
            )
    data = ModelCardData(
        license=license,
        model_name=model_name if results else None,
        eval_results=results or None,
        datasets=[record.data["hub_id"]] if record.data.get("hub_id") else None,
        metrics=sorted({result.metric_type for result in results}) or None,
    )
    return METADATA.format(model_type=config.model_type) + (data.to_yaml() if data.to_dict() else "")


def sections(config: PreTrainedConfig, record: TrainingRecord) -> str:
    """Returns Markdown about results, data, item codes and training, as far as the record knows them."""
    return "\n".join(
        text for text in (_results(config, record), _data(record), _codes(record), _training(record)) if text
    )


def table(header: list[str], rows: list[list]) -> str:
    """Returns a Markdown table; characters that could break a cell are escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(value) for value in line) + " |" for line in lines) + "\n"


def _cell(value) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    text = " ".join(str(value).split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
    return text if len(text) <= CELL_LENGTH else text[:CELL_LENGTH] + "..."


def _words(name: str) -> str:
    return name.replace("_", " ")


def _results(config: PreTrainedConfig, record: TrainingRecord) -> str:
    parts = []
    for evaluation in record.evaluations:
        protocol = dict(evaluation.get("protocol", {}))
        hashes = protocol.pop("data", {})
        systems = {OURS: evaluation["metrics"], **evaluation.get("baselines", {})}
        intervals = evaluation.get("intervals", {})
        shown = [name for name in SHOWN if name in evaluation["metrics"]]
        rows = _rows(systems, shown)
        if intervals:
            half = [f"{intervals[name][0]:.4f} to {intervals[name][1]:.4f}" for name in shown]
            rows.insert(1, ["its 95% interval", *half])
        how = f"Protocol: {', '.join(f'{_words(name)}: {value}' for name, value in protocol.items())}."
        if hashes:
            how += f" Hashes of the data: {', '.join(f'{name} {value}' for name, value in hashes.items())}."
        header = ["system", *map(shown_name, shown)]
        parts.append(f"### {evaluation['split'].capitalize()} split\n\n{table(header, rows)}\n{how}\n")
        parts.append(_settings(config, evaluation))
        for name, part in evaluation.get("parts", {}).items():
            title = part_title(name, part).capitalize()
            parts.append(f"{title}.\n\n{table(header, _rows(systems_of_part(part), shown))}")
    if not parts:
        return ""
    words = (
        "Recall@k is the share of users whose next item is among the first k of their list. NDCG@k counts a hit for "
        "more if it is nearer to the top. Baselines were run on the same split. Intervals are of the mean over users, "
        "by normal approximation."
    )
    return f"## Results\n\n{words}\n\n" + "\n".join(parts)


def _settings(config: PreTrainedConfig, evaluation: dict[str, Any]) -> str:
    """Returns Markdown about the search settings of an evaluation, and whether they are the model's own."""
    protocol = evaluation.get("protocol", {})
    own = asdict(SearchSettings.of(config.search_settings))
    measured = {name: evaluation.get(name) or 0.0 for name in ("rerank_weight", "transition_weight")}
    measured |= {"num_beams": protocol.get("num_beams", own["num_beams"])}
    measured |= {"exclude_history": protocol.get("seen_items") == "left out"}
    other = {name: measured[name] for name, value in own.items() if measured[name] != value}
    if not other:
        return (
            f"Measured with the model's own search settings ({written_settings(own)}). `recommend` and the pipeline "
            "follow them unless a call gives others.\n"
        )
    theirs = {name: own[name] for name in other}
    return (
        f"Measured with `recommend({written_settings(other)})`. The model's own search settings, which "
        f"`recommend` follows without these arguments, are {written_settings(theirs)}.\n"
    )


def _rows(systems: dict[str, dict[str, float]], shown: list[str]) -> list[list[str]]:
    """Returns one row of metrics per system."""
    return [
        [system, *(f"{values[name]:.4f}" if name in values else "-" for name in shown)]
        for system, values in systems.items()
    ]


def _data(record: TrainingRecord) -> str:
    if not record.data:
        return ""
    return "## Data\n\n" + table(["", ""], [[_words(name), value] for name, value in record.data.items()])


def _codes(record: TrainingRecord) -> str:
    if not record.codes:
        return ""
    rows = [[_words(name), value] for name, value in record.codes.items()]
    return (
        "## Item codes\n\nAn item's prefix is its codes before the suffix, the last code, which makes an item's codes "
        "unique. The figures are per level of the prefix. Usage is the share of the level's codes that some item has. "
        "Perplexity is how many codes would be in use if all were used evenly. Gini is the inequality of their use "
        "(0: even). Prefixes are the distinct prefixes down to the level. Collisions are items that share their whole "
        "prefix.\n\n" + table(["", ""], rows)
    )


def _training(record: TrainingRecord) -> str:
    parts = []
    for number, stage in enumerate(record.stages, start=1):
        rows = [
            [_words(name), stage[name]]
            for name in ("data", "rewards", "epochs", "steps", "seconds", "device")
            if name in stage
        ]
        rows += [[name, value] for name, value in stage.get("losses", {}).items()]
        before = stage.get("validation_before", {})
        for name, value in stage.get("validation", {}).items():
            was = f" (before: {_cell(before[name])})" if name in before else ""
            rows.append([f"validation {name}", f"{_cell(value)}{was}"])
        rows += [[f"`{name}`", value] for name, value in stage.get("arguments", {}).items()]
        if "versions" in stage:
            rows.append(["versions", ", ".join(f"{name} {value}" for name, value in stage["versions"].items())])
        parts.append(f"### {number}. {stage['stage']}\n\n{table(['', ''], rows)}")
    if not parts:
        return ""
    logged = {name for stage in record.stages for name in stage.get("losses", {})}
    named = [f"`{name}` is that of {what}" for name, what in LOSSES.items() if name in logged]
    note = "Losses are the last ones that were logged. " + "".join(f"{loss}. " for loss in named)
    note += "Arguments are shown if they differ from their defaults."
    return "## Training\n\n" + note + "\n\n" + "\n".join(parts)
