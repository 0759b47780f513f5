"""`--preset`: values of options that neither the call nor its `--config` gives."""

import json
import shutil
from pathlib import Path

import pytest
from tiny_models import make_model, random_codes

from etegrec_hf.cli.preset import preset_values
from etegrec_hf.data.prepared import PreparedDataset
from etegrec_hf.training.from_log.presets import LogSize, fitted_preset, read_preset


@pytest.fixture(scope="module")
def data(prepared_folder) -> str:
    return prepared_folder


def values(command: str, data: str, *argv: str, **config) -> dict:
    return preset_values(command, ["--data", data, *argv], config)


@pytest.mark.parametrize("command", ["train-tokenizer", "train"])
@pytest.mark.parametrize("preset", ["best", "fast", "paper"])
def test_a_preset_is_fitted_to_the_log(data, command, preset):
    fitted = fitted_preset(preset, LogSize.of(PreparedDataset.load(data)))[command]
    assert values(command, data, "--preset", preset) == fitted
    assert values(command, data, preset=preset) == fitted
    assert values(command, data, "--preset", preset, preset="none of these") == fitted, "the call wins"


def test_best_is_the_default_and_another_name_is_an_error(data):
    assert values("train", data) == values("train", data, "--preset", "best")
    with pytest.raises(ValueError, match=r"`preset` is 'bset'.*best"):
        values("train", data, "--preset", "bset")


@pytest.mark.parametrize(
    ("argv", "config", "left_out"),
    [
        (["--per-device-train-batch-size=8"], {}, "max_tokens_per_batch"),
        (["--per_device_train_batch_size", "8"], {}, "max_tokens_per_batch"),
        ([], {"per_device_train_batch_size": 8}, "max_tokens_per_batch"),
        (["--max-steps", "10"], {}, "num_train_epochs"),
        (["--num-transitions", "0"], {}, "learns_transitions"),
        ([], {"recent_items": 0}, "learns_transitions"),
    ],
)
def test_what_is_given_replaces_what_would_contradict_it(data, argv, config, left_out):
    whole = values("train", data)
    assert left_out in whole
    assert values("train", data, *argv, **config) == {name: value for name, value in whole.items() if name != left_out}
    assert values("train", data, "--stream", "false", "--num-transitions", "8") == whole


@pytest.mark.parametrize(("argv", "config"), [(["--item_logits=none"], {}), ([], {"item_logits": "none"})])
def test_a_model_without_item_logits_has_one_vector_per_item(data, argv, config):
    whole = values("train", data)
    assert whole["item_ensemble"] > 1
    kept = whole.keys() - {"learns_transitions", "item_ensemble"}
    assert values("train", data, *argv, **config) == {key: whole[key] for key in kept}


@pytest.mark.parametrize(("argv", "config"), [(["--stream"], {}), ([], {"stream": True})])
def test_streams_count_no_transitions(data, argv, config):
    left_out = {"num_transitions", "learns_transitions"}
    whole = values("train", data)
    assert left_out < whole.keys()
    assert values("train", data, *argv, **config) == {key: whole[key] for key in whole.keys() - left_out}


@pytest.mark.parametrize("has_item_tokenizer", [True, False])
def test_finetuning_aligns_only_what_can_be_aligned(data, prepared, tmp_path, has_item_tokenizer):
    make_model(random_codes(prepared.n_items, 3, 8), 8).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"has_item_tokenizer": has_item_tokenizer}))
    found = values("finetune", data, "--model", str(tmp_path))
    assert ("psa_weight" in found) == has_item_tokenizer
    assert found["learning_rate"] == read_preset("best")["finetune"]["learning_rate"]


def test_a_dataset_that_cannot_be_read_is_left_to_the_command(tmp_path):
    assert values("train", str(tmp_path)) == {}
    Path(tmp_path, "statistics.json").write_text("{")
    assert values("train", str(tmp_path)) == {}


def test_statistics_without_what_a_preset_is_fitted_to_are_an_error(data, tmp_path):
    """Otherwise a training would have the defaults of its class, whatever the preset."""
    shutil.copytree(data, tmp_path / "data")
    statistics = json.loads((tmp_path / "data/statistics.json").read_text())
    del statistics["interactions"]
    (tmp_path / "data/statistics.json").write_text(json.dumps(statistics))
    with pytest.raises(ValueError, match=r"statistics.json lacks \['interactions'\], to which the preset is fitted"):
        values("train", str(tmp_path / "data"))
