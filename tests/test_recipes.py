"""The script behind `make reproduce-instruments`, on a tiny recipe, and the recipes of this repository."""

import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import forks
import pytest
import yaml

from etegrec_hf.cli.embed import EmbedArguments
from etegrec_hf.cli.evaluate import EvaluateArguments, EvaluateOptions
from etegrec_hf.cli.finetune import FinetuneArguments
from etegrec_hf.cli.grpo import GrpoArguments
from etegrec_hf.cli.prepare import PrepareArguments
from etegrec_hf.cli.train import TrainArguments
from etegrec_hf.cli.train_tokenizer import TokenizerArguments
from etegrec_hf.data.config_file import read_config
from etegrec_hf.training.collaborative.arguments import CollaborativeSizes, CollaborativeTrainingArguments
from etegrec_hf.training.grpo.arguments import ETEGRecGRPOConfig
from etegrec_hf.training.item_tokenizer.arguments import RQVAETrainingArguments
from etegrec_hf.training.item_tokenizer.options import ItemTokenizerOptions
from etegrec_hf.training.recommender.arguments import ETEGRecTrainingArguments, FinetuningArguments
from etegrec_hf.training.recommender.options import RecommenderOptions

RECIPES = Path(__file__).parents[1] / "examples/recipes"
CLASSES = {
    "prepare": (PrepareArguments,),
    "embed": (EmbedArguments, CollaborativeSizes, CollaborativeTrainingArguments),
    "train-tokenizer": (TokenizerArguments, ItemTokenizerOptions, RQVAETrainingArguments),
    "train": (TrainArguments, RecommenderOptions, ETEGRecTrainingArguments),
    "finetune": (FinetuneArguments, FinetuningArguments),
    "grpo": (GrpoArguments, ETEGRecGRPOConfig),
    "evaluate": (EvaluateArguments, EvaluateOptions),
}
COMMON = {"use_cpu": True, "per_device_train_batch_size": 16}
TINY = {
    "prepare": {"path": "log.inter.json", "format": "letter", "embedding": ["cooccurrence"], "min_count": 2},
    "train-tokenizer": {"hidden_sizes": [16], "latent_size": 8, "num_levels": 2, "codebook_size": 8,
                        "num_train_epochs": 2, **COMMON},
    "train": {"d_model": 16, "d_ff": 16, "d_kv": 8, "num_layers": 1, "num_decoder_layers": 1, "num_heads": 2,
              "num_train_epochs": 2, "num_beams": 10, "num_transitions": 5, **COMMON},
    "finetune": {"num_train_epochs": 1, "num_beams": 10, **COMMON},
    "grpo": {"rewards": ["hit"], "num_generations": 4, "max_steps": 1, "num_beams": 10, **COMMON},
    "evaluate": {"num_beams": 10, "transition_weight": 0.2},
    "variants": {"full": {}, "no finetuning": {"finetune": None},
                 "no SIA": {"train": {"sia_weight": 0}, "finetune": None},
                 "with GRPO": {"finetune": {"num_train_epochs": 2}, "grpo": {}},
                 "no votes": {"evaluate": {"transition_weight": 0}}},
}  # fmt: skip


@pytest.mark.parametrize("folder", sorted(path.name for path in RECIPES.iterdir() if path.is_dir()))
def test_recipes_hold_known_keys(folder):
    for path in (RECIPES / folder).glob("*.yaml"):
        if path.stem != "variants":
            read_config(path, {name for part in CLASSES[path.stem] for name in part.__dataclass_fields__})
    files = {path.stem: path for shared in ("common", folder) for path in (RECIPES / shared).iterdir()}
    assert files.keys() | {"embed", "prepare", "grpo"} == {*CLASSES, "variants"}
    variants = yaml.safe_load(files["variants"].read_text())
    assert variants["full"] == {}
    for changes in variants.values():
        for command, changed in changes.items():
            known = {name for part in CLASSES[command] for name in part.__dataclass_fields__}
            assert set(changed or {}) <= known


@pytest.fixture
def tiny(tmp_path) -> Path:
    """A recipe and a log of 30 users."""
    for name, values in TINY.items():
        (tmp_path / "recipe").mkdir(exist_ok=True)
        (tmp_path / f"recipe/{name}.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    log = {str(user): [(user * 7 + step * (1 + user % 3)) % 23 for step in range(8)] for user in range(30)}
    (tmp_path / "log.inter.json").write_text(json.dumps(log))
    return tmp_path


def script(folder: Path, *options: str) -> list[str]:
    """The script's path and arguments."""
    arguments = [folder / "recipe", "--raw", folder, "--output-dir", folder / "out", "--seeds", "3", *options]
    return [str(RECIPES / "run.py"), *map(str, arguments)]


@pytest.fixture
def run(tiny, monkeypatch, undrawn_pictures):
    """Runs the script in this process, and its commands in copies of it."""
    monkeypatch.setattr(subprocess, "run", forks.run)

    def run(*options: str) -> None:
        monkeypatch.setattr(sys, "argv", script(tiny, *options))
        runpy.run_path(sys.argv[0], run_name="__main__")

    return run


@pytest.mark.slow
def test_a_recipe_runs_every_stage_once_and_ends_in_tables(tiny, run):
    run()
    out = tiny / "out"
    results = json.loads((out / "results.json").read_text())
    assert [command["command"] for command in results["commands"]] == [
        "prepare", "train-tokenizer", "train", "finetune", "evaluate", "evaluate",
    ]  # fmt: skip
    assert results["runs"]["full"]["seed 3"]["test"]["seeds"] == {
        "item tokenizer": 3,
        "alternating training": 3,
        "finetuning": 3,
    }
    kept, left_out = (results["tables"][name]["protocol"]["seen_items"] for name in ("test", "test_seen_left_out"))
    assert (kept, left_out) == ("kept", "left out")

    (out / "seed-3/full/finetune/report.html").unlink()  # as if it had been stopped before its end
    (out / "seed-3/full/test.json").unlink()
    run("--variants", "all")
    results = json.loads((out / "results.json").read_text())
    again = [command["command"] for command in results["commands"][6:]]
    # the full one's end, the model before finetuning (which is the full one's), and the variant's stages from train on
    assert again == [
        "finetune", "evaluate", "evaluate", "evaluate", "train", "evaluate", "evaluate",
        "finetune", "grpo", "evaluate", "evaluate", "evaluate", "evaluate",
    ]  # fmt: skip
    assert "resume=True" in results["commands"][6]["told"]
    assert set(results["tables"]["test"]["systems"]) == {*TINY["variants"]}
    assert set(results["tables"]["test"]["differences"]["systems"]) == {*TINY["variants"]} - {"full"}
    rewarded = results["runs"]["with GRPO"]["seed 3"]["test"]["seeds"]
    assert rewarded["reinforcement learning"] == 3
    assert not (out / "seed-3/no finetuning/train").exists()
    full, without = (results["runs"][name]["seed 3"]["test"] for name in ("full", "no votes"))
    assert (full["transition_weight"], without["transition_weight"]) == (0.2, 0.0)
    assert full["test"] != without["test"]


def test_a_variant_that_does_not_exist(run, capsys):
    with pytest.raises(SystemExit) as end:
        run("--variants", "nothing")
    assert end.value.code == 2
    assert f"no variant 'nothing'; variants.yaml has {', '.join(TINY['variants'])}" in capsys.readouterr().err


def test_a_recipe_without_the_files_that_recipes_share(tiny, run):
    (tiny / "recipe/variants.yaml").unlink()
    with pytest.raises(SystemExit, match=r"variants\.yaml' doesn't exist; copy examples/recipes/common to .*common'"):
        run()


@pytest.mark.slow
def test_a_failing_command_names_its_log(tiny):
    """Here all are processes of their own."""
    (tiny / "log.inter.json").write_text("[]")
    ended = subprocess.run([sys.executable, *script(tiny)], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    told, last = ended.stderr.splitlines()
    assert told == f"etegrec prepare failed; all that it printed is in {tiny / 'out/data.log'}, and ends with"
    assert last.startswith("etegrec prepare: ")
    assert (tiny / "out/data.log").read_text().startswith("etegrec prepare: ")


def test_nothing_of_others_is_touched(tiny, run):
    mine = tiny / "out/data/mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("precious")
    with pytest.raises(SystemExit, match="out' holds other files"):
        run()
    assert [path for path in (tiny / "out").rglob("*") if path.is_file()] == [mine]


@pytest.mark.slow
def test_embeddings_are_made_once_for_each_prepared_dataset(tiny, monkeypatch):
    monkeypatch.setattr(subprocess, "run", forks.run)
    embed = {
        "collaborative": True,
        "width": 8,
        "num_layers": 1,
        "num_heads": 1,
        "num_train_epochs": 1,
        "use_cpu": True,
    }
    (tiny / "recipe/embed.yaml").write_text(yaml.safe_dump(embed))
    (tiny / "out").mkdir()
    recipe = runpy.run_path(str(RECIPES / "run.py"))["Recipe"](tiny / "recipe", tiny, tiny / "out", 1, [])

    def commands() -> list[str]:
        return [json.loads(line)["command"] for line in recipe.commands.read_text().splitlines()]

    recipe.prepare()
    recipe.prepare()
    assert commands() == ["prepare", "embed"]
    shutil.rmtree(recipe.data)  # prepared anew, it needs its embeddings anew
    recipe.prepare()
    assert commands() == ["prepare", "embed"] * 2
    first_line = recipe.commands.read_text().splitlines()[0]
    recipe.commands.write_text(first_line + "\n")  # as if `embed` had been killed before its first checkpoint
    shutil.rmtree(tiny / "out/embed")
    (tiny / "out/embed/.incomplete").mkdir(parents=True)
    recipe.prepare()
    assert commands() == ["prepare", "embed"]
