"""Folders of models on this disk or on the Hub: finding, checking, loading and saving them."""

import json
import re
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedConfig, PreTrainedModel

from ..data.folders import check_output_dir, complete_or_absent, replace_text
from ..evaluation.evaluate import Evaluation
from ..models.configuration_etegrec import ETEGRecConfig
from ..models.modeling_etegrec import ETEGRecForConditionalGeneration
from ..models.tokenization_etegrec import ETEGRecTokenizer
from .client import HUB_ID, cached_repository
from .eval_results import write_eval_results
from .model_card import write_model_card
from .training_record import TrainingRecord

MODEL_FILES = ("config.json", "model.safetensors")
OBJECTS = (  # JSON files that hold an object
    *("config.json", "generation_config.json", "tokenizer_config.json", "item_index.json", "item_titles.json"),
    *("training_record.json", "trainer_state.json"),
)
SHIPPED = ["*.json", "*.safetensors", "*.py", "README.md"]  # files of a published model


def local_folder(name: str) -> Path:
    """Returns the folder of that name, or the folder in the cache that the Hub's model is downloaded to.

    Raises:
        FileNotFoundError: there is neither a folder nor a model of that name.
        ConnectionError: there is no such folder, and the connection to the Hub broke.
    """
    if Path(name).is_dir():
        return Path(name)
    if not re.fullmatch(HUB_ID, name):
        raise FileNotFoundError(
            f"{name!r} isn't a folder; give a model's folder, or its id on the Hub (user/name, maybe with @revision)."
        )
    return Path(cached_repository(name, "model", SHIPPED))


def check_files(folder: str | Path, required: tuple[str, ...] = MODEL_FILES) -> None:
    """Checks the files in the folder of a model or checkpoint before anything is loaded from it.

    JSON files must parse and hold what they should, and safetensors files must be as long as their header says. Zip
    archives, as torch writes them, must have their directory, which is at their end.

    Raises:
        FileNotFoundError: a required file is missing.
        ValueError: a file is truncated or damaged.
    """
    for name in required:
        if not Path(folder, name).exists():
            message = f"{str(folder)!r} isn't complete: it holds no {name}; copy the folder again."
            if name not in MODEL_FILES:  # a file of a training
                message += (
                    " A checkpoint saved with `save_only_model` can't be resumed: start a new run from its model."
                )
            raise FileNotFoundError(message)
    for path in sorted(Path(folder).iterdir()):
        try:
            if path.suffix == ".json":
                value = json.loads(path.read_text(encoding="utf-8"))
                if path.name in OBJECTS and not isinstance(value, dict):
                    raise ValueError(f"it holds a {type(value).__name__}, not an object")
            elif path.suffix == ".safetensors":
                with safe_open(path, "pt"):
                    pass
            elif path.suffix in (".pt", ".pth") and not zipfile.is_zipfile(path):
                raise zipfile.BadZipFile("its end is missing")
        except (ValueError, SafetensorError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"{path.name} in {str(folder)!r} is truncated or damaged ({str(error).splitlines()[0]}); "
                "copy the folder again. If it is a checkpoint, you can also remove it and resume from the one before."
            ) from error


def model_config(folder: Path) -> dict:
    """Returns what `config.json` says of the model in a folder.

    Raises:
        FileNotFoundError: the folder holds no model.
        ValueError: a file is damaged.
    """
    if not (folder / "config.json").exists():
        raise FileNotFoundError(
            f"{str(folder)!r} holds no model (no config.json); give the output folder of a finished stage."
        )
    check_files(folder)
    return json.loads((folder / "config.json").read_text(encoding="utf-8"))


def load_model(cls: type[PreTrainedModel], name: str):
    """Loads a model in eval mode, onto the GPU if there is one.

    Args:
        cls (`type`): the model's class.
        name (`str`): the model's folder, or its id on the Hub.

    Raises:
        FileNotFoundError: there is no such folder or repository, or no model in it.
        ValueError: a file is truncated.
        ValueError: the model is of another kind, or of a subclass.
    """
    folder = local_folder(name)
    config = model_config(folder)
    found = config.get("model_type")
    if found != cls.config_class.model_type:
        raise ValueError(f"{name!r} holds a model of type {found!r}; expected {cls.config_class.model_type!r}.")
    saved = config.get("architectures") or [cls.__name__]
    if cls.__name__ not in saved:
        raise ValueError(
            f"{name!r} holds a model of the class {saved[0]!r}, whose weights can mean something else in a "
            f"{cls.__name__}; give a folder that a {cls.__name__} itself was saved to."
        )
    return cls.from_pretrained(folder).eval().to("cuda" if torch.cuda.is_available() else "cpu")


def load_recommender(name: str) -> tuple[ETEGRecForConditionalGeneration, ETEGRecTokenizer]:
    """Loads a recommender and its tokenizer, and checks that both have the same items with the same codes.

    Raises:
        FileNotFoundError: there is no such folder or repository, or a file is missing in it.
        ValueError: a file is truncated.
        ValueError: the model is of another kind, or the tokenizer belongs to another model.
    """
    model = load_model(ETEGRecForConditionalGeneration, name)
    folder = local_folder(name)
    for file in ("item_index.json", "tokenizer_config.json"):
        if not (folder / file).exists():
            raise FileNotFoundError(f"{name!r} holds no {file}; save the tokenizer into the model's folder again.")
    tokenizer = ETEGRecTokenizer.from_pretrained(folder)
    model.catalogue.check_tokenizer(tokenizer)
    return model, tokenizer


def save_model_folder(
    folder: str | Path,
    model: PreTrainedModel,
    tokenizer: ETEGRecTokenizer | None,
    record: TrainingRecord,
    name: str | None = None,
    license: str | None = None,
) -> None:
    """Saves a model with its tokenizer (if it has one), training record and card into a new folder.

    The folder is written whole or not at all. The card's example loads the model by `name`, by default the folder's
    path.

    Raises:
        FileExistsError: the folder isn't empty.
    """
    with complete_or_absent(check_output_dir(folder)) as staging:
        model.save_pretrained(staging)
        if tokenizer is not None:
            tokenizer.save_pretrained(staging)
        record.write(staging)
        write_eval_results(staging, record)
        write_model_card(staging, model.config, record, name or str(folder), license)


def record_evaluation(
    folder: str, config: PreTrainedConfig, evaluation: Evaluation, dataset: str | None = None
) -> TrainingRecord:
    """Adds an evaluation to a model's training record and card, and to `.eval_results` if the dataset is on the Hub.

    Args:
        folder (`str`): folder of the model.
        config ([`ETEGRecConfig`]): configuration of the model.
        evaluation ([`Evaluation`]): the evaluation; an earlier evaluation of the same split is replaced.
        dataset (`str`, *optional*): the dataset's id on the Hub, maybe with a revision. The record then has the date
            too.

    Returns:
        [`TrainingRecord`] with the evaluation.
    """
    record = TrainingRecord.read(folder)
    figures = evaluation.figures() | {"seeds": record.seeds()}
    if dataset is not None:
        figures |= {"dataset": dataset, "date": datetime.now(UTC).isoformat(timespec="seconds")}
    record.add_evaluation(figures)
    write_eval_results(folder, record)
    write_model_card(folder, config, record, folder)
    record.write(folder)
    return record


def save_search_settings(folder: str | Path, settings: dict[str, Any]) -> ETEGRecConfig:
    """Writes a model's own search settings into `config.json`, and writes its card anew.

    Each file is replaced as a whole; everything else in `config.json` stays.

    Args:
        folder (`str` or `Path`): folder of the model.
        settings (`dict`): values by the names of [`SearchSettings`].

    Returns:
        [`ETEGRecConfig`] with the settings.

    Raises:
        FileNotFoundError, ValueError: see [`model_config`].
        ValueError: [`ETEGRecConfig`] refuses the settings.
    """
    saved = model_config(Path(folder)) | {"search_settings": settings}
    config = ETEGRecConfig.from_dict(saved)
    text = json.dumps(saved, indent=2, sort_keys=True) + "\n"
    replace_text(Path(folder, "config.json"), text)
    write_model_card(folder, config, TrainingRecord.read(folder), str(folder))
    return config
