"""Help, and calls with wrong options, which are answered without importing a command's modules."""

import dataclasses
import os
import re
import subprocess
import sys

import pytest

from etegrec_hf import ETEGRecGRPOConfig, ETEGRecTrainingArguments, RecommenderOptions, RQVAETrainingArguments
from etegrec_hf.cli import options
from etegrec_hf.cli.commands import COMMANDS
from etegrec_hf.cli.describe import described_commands
from etegrec_hf.cli.main import main
from etegrec_hf.cli.options import FILE, check_call, check_command, installed_versions, made_with, read_options

WORKS_ON = [command for command in COMMANDS if read_options(command).works_on]
ENTRY = re.compile(r"^  (?:-h, )?(?:\S+(?: \.\.\.)? \(or )?--([\w-]+)", re.MULTILINE)


def shown(capsys, monkeypatch, *argv: str) -> str:
    """Returns a command's help on a terminal of 120 columns, without examples."""
    monkeypatch.setenv("COLUMNS", "120")
    with pytest.raises(SystemExit) as stop:
        main([*argv])
    assert stop.value.code == 0
    return capsys.readouterr().out


def wrong(capsys, *argv: str) -> str:
    """Returns the message about a wrong call, which follows the usage."""
    with pytest.raises(SystemExit) as stop:
        main([*argv])
    assert stop.value.code == 2
    usage, error = capsys.readouterr().err.splitlines()
    assert usage.startswith(f"usage: etegrec {argv[0]} ")
    return error.removeprefix(f"etegrec {argv[0]}: error: ")


@pytest.mark.skipif(made_with() != installed_versions(), reason="options of other versions of transformers or TRL")
def test_the_file_of_options_is_up_to_date():
    assert FILE.read_text(encoding="utf-8") == described_commands(), "make options"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_short_and_shows_each_option_once(command, capsys, monkeypatch):
    told = shown(capsys, monkeypatch, command, "--help")
    assert told.startswith(f"usage: etegrec {command} ")
    assert len(told.splitlines()) <= 60
    described, examples = told.partition("\n\n")[2].split("\nexamples:\n")
    assert f"  etegrec {command}" in examples
    known = read_options(command).options
    expected = ["help", *(option.name for option in known if not option.is_extra)]
    if any(option.is_extra for option in known):
        expected.append("help-all")
    assert sorted(ENTRY.findall(described)) == sorted(expected)
    assert not re.search(r"--\w+_", told.replace("--config_file", "")), "one spelling, with hyphens"
    for option in known:
        if not option.is_extra and (option.required or option.default is not None):
            entry = re.split(rf"--{option.name}\b(?!-)", described, maxsplit=1)[1].split("\n  --")[0]
            told_last = " (required)" if option.required else f" (default: {option.default})"
            assert told_last in " ".join(entry.split()), option.name


@pytest.mark.parametrize(
    ("command", "classes"),
    [
        ("train", (RecommenderOptions, ETEGRecTrainingArguments)),
        ("train-tokenizer", (RQVAETrainingArguments,)),
        ("grpo", (ETEGRecGRPOConfig,)),
    ],
)
def test_help_all_shows_everything(command, classes, capsys, monkeypatch):
    told = ENTRY.findall(shown(capsys, monkeypatch, command, "--help-all"))
    fields = {field.name.replace("_", "-") for cls in classes for field in dataclasses.fields(cls) if field.init}
    assert fields <= set(told)
    assert len(told) == len(set(told))
    assert set(told) == {"help", "help-all", *(option.name for option in read_options(command).options)}


@pytest.mark.parametrize("command", ["train-tokenizer", "train", "finetune", "grpo"])
def test_what_matters_of_a_training_is_first(command, capsys, monkeypatch):
    purpose, first = shown(capsys, monkeypatch, command, "--help").split("\n\n")[1:3]
    assert purpose == read_options(command).purpose
    assert first.startswith("what matters first:\n")
    assert {"output-dir", "config", "num-train-epochs", "learning-rate", "per-device-train-batch-size"} | {
        "resume", "seed", "bf16", "use-cpu"
    } <= set(ENTRY.findall(first))  # fmt: skip
    assert len(ENTRY.findall(first)) <= 13


def test_help_shows_the_defaults_of_this_package(capsys, monkeypatch):
    told = " ".join(shown(capsys, monkeypatch, "embed", "--help").split())
    assert "--learning-rate X Highest learning rate. (default: 0.001)" in told  # transformers' own is 5e-5
    told = " ".join(shown(capsys, monkeypatch, "finetune", "--help").split())
    assert "--learning-rate X Highest learning rate. (default: by --preset)" in told
    assert "MODEL (or --model) A trained recommender: a folder or a Hub id. (required)" in told
    assert "--sia-weight X Weight of the sequence-item alignment. (default: 0.0)" in told  # 1e-4 of `train`


def test_help_and_wrong_calls_need_no_torch(tmp_path):
    (tmp_path / "c.yaml").write_text("num_train_epochs: many\n")
    program = """
import sys
from etegrec_hf.cli.main import main
for argv in (["train", "--help"], ["grpo", "--help"], ["train", "d", "--tokenizr", "t"], ["train", "d"],
             ["embed", "d", "--num-train-epochs", "many"], ["finetune", "m", "--data", "d", "--config", sys.argv[1]]):
    try:
        print(main(argv))
    except SystemExit as stop:
        print(stop.code)
print({"torch", "transformers", "trl", "numpy"} & set(sys.modules))
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", program, tmp_path / "c.yaml"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert re.findall(r"^(?:\d+|set\(\))$", done.stdout, re.MULTILINE) == ["0", "0", "2", "2", "2", "2", "set()"]
    errors = [line for line in done.stderr.splitlines() if not line.startswith("usage: ")]
    assert errors == [
        "etegrec train: error: unknown argument '--tokenizr'; did you mean '--tokenizer'?",
        "etegrec train: error: the following arguments are required: --tokenizer",
        "etegrec embed: error: argument --num-train-epochs: invalid float value: 'many'",
        "etegrec finetune: error: argument --num-train-epochs: invalid float value: 'many'",
    ]


def test_wrong_calls_say_what_is_wrong(capsys):
    assert wrong(capsys, "train") == "the following arguments are required: DATA, --tokenizer"
    assert wrong(capsys, "train", "d", "--num-layers", "2.5") == "argument --num-layers: invalid int value: '2.5'"
    assert wrong(capsys, "train", "d", "--num_layers", "2.5") == "argument --num-layers: invalid int value: '2.5'"
    assert wrong(capsys, "train", "d", "--stream", "maybe") == "argument --stream: 'maybe' is neither true nor false"
    assert wrong(capsys, "train", "d", "--tokenizer") == "argument --tokenizer: expected one argument"
    assert wrong(capsys, "evaluate", "m", "x", "--data", "d") == "unknown argument 'x'; see --help."
    assert wrong(capsys, "completion", "fish") == (
        "argument --shell: invalid choice: 'fish' (choose from 'bash', 'zsh')"
    )


def test_options_of_other_versions_are_left_to_the_command(monkeypatch, capsys):
    argv = ["d", "--tokenizer", "t", "--of-the-next-transformers", "1"]
    with pytest.raises(SystemExit):
        check_command("train", argv)
    capsys.readouterr()
    monkeypatch.setattr(options, "installed_versions", lambda: {"transformers": "5.23.9", "trl": "1.16.0"})
    check_command("train", argv)
    error = wrong(capsys, "train", *argv)  # which the command itself finds
    assert error == "unknown argument '--of-the-next-transformers'; see --help."


# What a command works on


@pytest.mark.parametrize("command", WORKS_ON)
def test_what_a_command_works_on_stands_first_or_has_its_name(command, capsys):
    described = read_options(command)
    (subject,) = [option for option in described.options if option.name == described.works_on]
    value = "bash" if command == "completion" else "a=x"
    others = [option for option in described.options if option.required and option is not subject]
    rest = [part for option in others for part in (f"--{option.name}", "1")]
    named = [f"--{subject.name}", value, *rest]
    assert check_call(described, [value, *rest]) == check_call(described, named) == (named, {})
    assert wrong(capsys, command, value, *named) == (
        f"{value!r} is the first argument, and --{subject.name} is given too; leave one of them out."
    )
    assert wrong(capsys, command, value, f"--{subject.name}={value}", *rest).startswith(
        f"{value!r} is the first argument, and"
    )


def test_commands_without_one_are_known():
    assert set(COMMANDS) - set(WORKS_ON) == {"quickstart", "env"}


def test_several_stand_first():
    argv, _ = check_call(read_options("diagnose"), ["runs/a", "runs/b", "--data", "d"])
    assert argv == ["--tokenizer", "runs/a", "runs/b", "--data", "d"]


def test_what_stands_first_wins_over_the_configuration(tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text("data: there\ntokenizer: t\n")
    argv, values = check_call(read_options("train"), ["here", "--config", str(config)])
    assert argv == ["--data", "here", "--config", str(config)]
    assert values == {"data": "there", "tokenizer": "t"}
