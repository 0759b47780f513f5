"""Properties of every command: help, wrong calls, wrong input, `--json` and completion."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from calling import call
from tiny_models import make_model, random_codes

from etegrec_hf import ETEGRecTokenizer, RQVAEConfig, RQVAEModel
from etegrec_hf.cli.commands import COMMANDS
from etegrec_hf.cli.completion import options, script
from etegrec_hf.cli.main import main
from etegrec_hf.hub.model_folder import save_model_folder
from etegrec_hf.hub.training_record import TrainingRecord

OWN = [command for command in COMMANDS if command not in ("env", "completion")]  # those that read files
MISSING, FILE, FOLDER, NEW = "{missing}", "{file}", "{folder}", "{new}"  # no such path, some text, an empty folder
WRONG_INPUT = [
    ("quickstart", "--output-dir", FILE),
    ("prepare", MISSING, "--format", "csv", "--output-dir", NEW),
    ("prepare", FOLDER, "--format", "csv", "--output-dir", NEW),
    ("prepare", FILE, "--format", "csv", "--output-dir", FILE),
    ("fit", MISSING, "--output-dir", NEW),
    ("fit", FOLDER, "--output-dir", NEW),
    ("fit", FILE, "--output-dir", FILE),
    ("embed", "--data", MISSING, "--fuse", "text"),
    ("embed", "--data", FILE, "--fuse", "text"),
    ("train-tokenizer", "--data", MISSING, "--output-dir", NEW),
    ("train-tokenizer", "--data", FILE, "--output-dir", NEW),
    ("train-tokenizer", "--data", FOLDER, "--output-dir", FILE),
    ("demo", "--model", MISSING),
    ("demo", "--model", FOLDER),
    ("serve", "--model", MISSING),
    ("serve", "--model", FOLDER),
    ("diagnose", "--tokenizer", MISSING, "--data", FOLDER),
    ("diagnose", "--tokenizer", FILE, "--data", FOLDER),
    ("train", "--data", MISSING, "--tokenizer", FOLDER, "--output-dir", NEW),
    ("train", "--data", FILE, "--tokenizer", FOLDER, "--output-dir", NEW),
    ("train", "--data", "{prepared}", "--tokenizer", FILE, "--output-dir", NEW),
    ("finetune", "--model", MISSING, "--data", "{prepared}", "--output-dir", NEW),
    ("finetune", "--model", FILE, "--data", "{prepared}", "--output-dir", NEW),
    ("grpo", "--model", MISSING, "--data", "{prepared}", "--output-dir", NEW),
    ("grpo", "--model", FILE, "--data", "{prepared}", "--output-dir", NEW),
    ("baselines", "--data", MISSING),
    ("baselines", "--data", FILE),
    ("baselines", "--data", FOLDER),
    ("evaluate", "--model", MISSING, "--data", "{prepared}"),
    ("evaluate", "--model", FILE, "--data", "{prepared}"),
    ("evaluate", "--model", FOLDER, "--data", "{prepared}"),
    ("compare", "--results", f"mine={MISSING}"),
    ("compare", "--results", f"mine={FILE}"),
    ("compare", "--results", f"mine={FOLDER}"),
    ("recommend", "--model", MISSING, "--history", "a"),
    ("recommend", "--model", FILE, "--history", "a"),
    ("add-items", "--model", MISSING, "--items", "{prepared}", "--output-dir", NEW),
    ("add-items", "--model", FILE, "--items", "{prepared}", "--output-dir", NEW),
    ("add-items", "--model", "{model}", "--items", MISSING, "--output-dir", NEW),
    ("add-items", "--model", "{model}", "--items", FILE, "--output-dir", NEW),
    ("add-items", "--model", "{model}", "--items", FOLDER, "--output-dir", NEW),
    ("convert", "--recommender", FILE, "--rqvae", FILE, "--codes", MISSING, "--output-dir", NEW),
    ("convert", "--recommender", FILE, "--rqvae", FILE, "--codes", FILE, "--output-dir", NEW),
    ("convert", "--recommender", FILE, "--rqvae", FILE, "--codes", FOLDER, "--output-dir", NEW),
    ("import-codes", MISSING, "--output-dir", NEW),
    ("import-codes", FILE, "--output-dir", NEW),
    ("import-codes", FOLDER, "--output-dir", NEW),
    ("export", MISSING, "--output-dir", NEW),
    ("export", FILE, "--output-dir", NEW),
    ("export", "{model}", "--output-dir", FILE),
    ("push", "--model", MISSING, "--repo-id", "me/it"),
    ("push", "--model", FILE, "--repo-id", "me/it"),
    ("push", "--data", FOLDER, "--repo-id", "me/it"),
]


@pytest.fixture(scope="module")
def model_folder(prepared, tmp_path_factory) -> str:
    """An untrained recommender of the prepared dataset's items."""
    codes = random_codes(prepared.n_items, 3, 8)
    folder = tmp_path_factory.mktemp("recommender") / "model"
    save_model_folder(
        folder, make_model(codes, 8), ETEGRecTokenizer.from_item_codes(prepared.item_ids, codes, 8), TrainingRecord()
    )
    return str(folder)


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("tokenizer")
    RQVAEModel(
        RQVAEConfig(input_size=12, hidden_sizes=[8], latent_size=4, num_levels=2, codebook_size=8)
    ).save_pretrained(folder)
    return str(folder)


def an_option(command: str) -> str:
    """Returns an option that a user may mistype."""
    return next(option for option in options(command) if option not in ("--help", "--help-all", "--config", "--debug"))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_mistyped_option_gets_the_nearest(command, capsys):
    option = an_option(command)
    with pytest.raises(SystemExit) as stop:
        main([command, option[:-1] + "q", "1"])
    assert stop.value.code == 2
    usage, error = capsys.readouterr().err.splitlines()
    assert usage.startswith(f"usage: etegrec {command} ")
    assert error == f"etegrec {command}: error: unknown argument {option[:-1] + 'q'!r}; did you mean {option!r}?"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_mistyped_key_gets_the_nearest(command, tmp_path, capsys):
    name = an_option(command)[2:].replace("-", "_")
    config = tmp_path / "c.yaml"
    config.write_text(yaml.dump({name[:-1] + "q": 1}))
    assert main([command, "--config", str(config)]) == 1
    (error,) = capsys.readouterr().err.splitlines()
    assert f"config key {name[:-1] + 'q'!r} in {config} does not exist; did you mean {name!r}?" in error
    assert main([command, "--config", str(tmp_path)]) == 1
    assert (
        capsys.readouterr().err == f"etegrec {command}: `config` {str(tmp_path)!r} isn't a file; name a YAML file.\n"
    )


def test_every_command_that_reads_files_is_given_wrong_ones():
    assert {case[0] for case in WRONG_INPUT} == set(OWN)


@pytest.mark.parametrize("case", WRONG_INPUT, ids=lambda case: " ".join(case))
def test_wrong_input_is_one_line_and_code_1(case, prepared_folder, model_folder, tmp_path, capsys):
    (tmp_path / "text").write_text("no data at all\n")
    (tmp_path / "folder").mkdir()
    paths = {
        "missing": tmp_path / "nowhere",
        "file": tmp_path / "text",
        "folder": tmp_path / "folder",
        "new": tmp_path / "new",
        "prepared": prepared_folder,
        "model": model_folder,
    }
    assert main([part.format(**paths) for part in case]) == 1
    out, err = capsys.readouterr()
    (error,) = [line for line in err.splitlines() if not line.startswith("Loading weights")]
    assert error.startswith(f"etegrec {case[0]}: ")
    assert "unexpected" not in error
    assert str(tmp_path) in error  # the path that is wrong
    assert re.search(r"; \w.+\.$", error), "no remedy"
    assert out == ""
    assert not (tmp_path / "new").exists()


WRITING = {
    "evaluate": ("--model", MISSING, "--data", MISSING),
    "baselines": ("--data", MISSING),
    "diagnose": ("--tokenizer", MISSING, "--data", MISSING),
    "compare": ("--results", f"a={MISSING}"),
    "recommend": ("--model", MISSING, "--data", MISSING),
}
ENDINGS = {"recommend": ".parquet, .csv or .jsonl", "--ranks": ".parquet"}


def test_every_command_with_an_output_file_is_known():
    assert {command for command in COMMANDS if "--output" in options(command)} == set(WRITING)


@pytest.mark.parametrize(
    ("command", "option"), [*((command, "--output") for command in WRITING), ("evaluate", "--ranks")]
)
def test_a_file_of_another_kind_is_refused_before_any_work(command, option, tmp_path, capsys):
    for name in ("out.pdf", "out"):
        assert main([command, *WRITING[command], option, str(tmp_path / name)]) == 1
        expected = ENDINGS.get(option) or ENDINGS.get(command, ".json")
        message = f"`{option[2:]}` is {str(tmp_path / name)!r}; name a file that ends in {expected}: the ending"
        assert message in " ".join(capsys.readouterr().err.split())


IDS = [  # each command's ids on the Hub, with their revisions
    ("evaluate", "--model", "user/it", "--revision", "v2", "--data", "{prepared}"),
    ("evaluate", "--model", "{model}", "--data", "user/it@v2"),
    ("recommend", "--model", "user/it", "--revision", "v2", "--history", "a"),
    ("recommend", "--model", "{model}", "--data", "user/it@v2", "--output", "{new}.parquet"),
    ("finetune", "--model", "user/it", "--revision", "v2", "--data", "{prepared}", "--output-dir", NEW),
    ("finetune", "--model", "{model}", "--data", "user/it@v2", "--output-dir", NEW),
    ("grpo", "--model", "user/it", "--revision", "v2", "--data", "{prepared}", "--output-dir", NEW),
    ("grpo", "--model", "{model}", "--data", "user/it@v2", "--output-dir", NEW),
    ("add-items", "--model", "user/it", "--revision", "v2", "--items", "{prepared}", "--output-dir", NEW),
    ("add-items", "--model", "{model}", "--items", "user/it@v2", "--output-dir", NEW),
    ("export", "user/it", "--revision", "v2", "--output-dir", NEW),
    ("demo", "--model", "user/it", "--revision", "v2", "--port", "47391"),
    ("demo", "--model", "{model}", "--data", "user/it@v2", "--port", "47391"),
    ("serve", "--model", "user/it", "--revision", "v2", "--port", "47391"),
    ("train", "--data", "{prepared}", "--tokenizer", "user/it", "--revision", "v2", "--output-dir", NEW),
    ("train", "--data", "user/it@v2", "--tokenizer", "{tokenizer}", "--output-dir", NEW),
    ("train-tokenizer", "--data", "user/it@v2", "--output-dir", NEW),
    ("diagnose", "--tokenizer", "user/it@v2", "--data", "{prepared}"),
    ("diagnose", "--tokenizer", "{tokenizer}", "--data", "user/it@v2"),
    ("baselines", "--data", "user/it@v2"),
    ("import-codes", "x.json", "--data", "user/it@v2", "--output-dir", NEW),
]


@pytest.mark.parametrize("case", IDS, ids=lambda case: " ".join(case))
def test_ids_of_the_hub_name_a_revision(case, prepared_folder, model_folder, tokenizer_folder, tmp_path, capsys):
    """This process is offline, and its cache holds nothing."""
    paths = {
        "prepared": prepared_folder,
        "model": model_folder,
        "tokenizer": tokenizer_folder,
        "new": tmp_path / "new",
    }
    assert main([part.format(**paths) for part in case]) == 1
    assert "'user/it@v2' isn't a folder, and the cache doesn't hold a " in capsys.readouterr().err


def test_every_command_with_a_model_takes_its_revision():
    with_model = {command for command in COMMANDS if "--model" in options(command)} - {"push"}  # which has a branch
    assert with_model | {"train"} == {case[0] for case in IDS if "--revision" in case}
    assert {command for command in COMMANDS if "--data" in options(command)} - {"push", "embed"} == {
        case[0] for case in IDS if "user/it@v2" in case
    } - {"add-items"}


def test_a_mistyped_command_gets_the_nearest(capsys):
    assert main(["evalute", "--model", "x"]) == 2
    assert capsys.readouterr().err == "etegrec: unknown command 'evalute'; did you mean 'evaluate'?\n"
    assert main(["zzz"]) == 2
    assert capsys.readouterr().err == "etegrec: unknown command 'zzz'; `etegrec --help` lists them.\n"


def test_an_unexpected_error_says_how_to_report_it(monkeypatch, capsys):
    def broken(arguments):
        raise KeyError("first\nsecond")

    monkeypatch.setattr("etegrec_hf.cli.baselines.measure_baselines", broken)
    assert main(["baselines", "--data", "x"]) == 1
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith("etegrec baselines: unexpected KeyError: ")
    assert "--debug" in error
    assert "`etegrec env`" in error
    with pytest.raises(KeyError):
        main(["baselines", "--data", "x", "--debug"])


@pytest.mark.parametrize(
    ("text", "begin"),
    [
        ("TRL 1.15 is installed, ...", "etegrec baselines: TRL 1.15 is installed, ..."),
        (None, "etegrec baselines: unexpected ModuleNotFoundError: No module named 'absent'"),
    ],
)
def test_a_package_that_is_refused_is_no_unexpected_error(monkeypatch, capsys, text, begin):
    def refusing(arguments):
        if text is not None:
            raise ImportError(text)
        import absent  # noqa: F401

    monkeypatch.setattr("etegrec_hf.cli.baselines.measure_baselines", refusing)
    assert main(["baselines", "--data", "x"]) == 1
    assert capsys.readouterr().err.startswith(begin)


def test_an_interruption_has_its_own_code(monkeypatch, capsys):
    def interrupted(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("etegrec_hf.cli.baselines.measure_baselines", interrupted)
    assert main(["baselines", "--data", "x"]) == 130
    assert capsys.readouterr().err == "etegrec baselines: interrupted\n"


@pytest.fixture
def unread(monkeypatch):
    """Returns a call that makes stdout or stderr a pipe whose reader has gone, and what is done at the end of it."""
    streams = []

    def close(name: str) -> None:
        reader, writer = os.pipe()
        os.close(reader)
        streams.append(os.fdopen(writer, "w", buffering=1 if name == "stderr" else -1))  # as Python's own
        monkeypatch.setattr(sys, name, streams[-1])

    yield close
    for stream in streams:
        stream.close()  # as when Python ends: what is left in it would be an error


@pytest.mark.parametrize(
    "argv",
    [
        *([command, "--help"] for command in COMMANDS),
        ["env"],
        ["env", "--json"],
        ["completion", "bash"],
        ["--help"],
        ["--version"],
    ],
    ids=" ".join,
)
def test_a_closed_pipe_ends_quietly(argv, unread, capsys):
    unread("stdout")
    try:
        code = main(argv)
    except SystemExit as stop:  # argparse ignores that nobody reads a help that is longer than a buffer
        assert "--help" in argv
        code = 141 if stop.code == 0 else stop.code
    assert code == 141
    assert capsys.readouterr().err == ""


def test_a_closed_pipe_in_the_midst_of_work(unread, monkeypatch, capsys):
    def measure(arguments):
        print("x" * 100_000)  # beyond the buffer
        raise AssertionError("it went on")

    monkeypatch.setattr("etegrec_hf.cli.baselines.measure_baselines", measure)
    unread("stdout")
    assert main(["baselines", "--data", "x"]) == 141
    unread("stdout")
    assert main(["baselines", "--data", "x", "--debug"]) == 141
    assert capsys.readouterr().err == ""


def test_a_closed_pipe_for_tables_and_errors(unread, monkeypatch):
    monkeypatch.setattr("etegrec_hf.cli.quickstart.quickstart", lambda arguments: {"test": {"recall@1": 0.5},
                        "baselines": {}, "optimum": {}, "seconds": 1.0})  # fmt: skip
    unread("stdout")
    assert main(["quickstart", "--output-dir", "x"]) == 141
    unread("stderr")
    assert main(["baselines", "--data", "x"]) == 141
    unread("stderr")
    assert main(["evalute"]) == 141


def test_streams_that_were_closed_before_are_none(monkeypatch):
    for name in ("stdout", "stderr"):  # as Python leaves those of `etegrec env >&- 2>&-`
        monkeypatch.setattr(sys, name, None)
    assert main(["--version"]) == 0
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["prepare", "nowhere.csv", "--format", "csv", "--output-dir", "x", "--json"]) == 1


def test_another_pipe_that_breaks_is_an_error(monkeypatch, capsys):
    def broken(arguments):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("etegrec_hf.cli.baselines.measure_baselines", broken)
    assert main(["baselines", "--data", "x"]) == 1
    assert capsys.readouterr().err == "etegrec baselines: [Errno 32] Broken pipe\n"


@pytest.mark.parametrize(("argv", "code"), [(["--help"], 0), (["--version"], 0), ([], 2), (["evalute"], 2)])
def test_what_needs_no_command_needs_no_torch(argv, code):
    program = (
        "import sys; from etegrec_hf.cli.main import main; code = main(sys.argv[1:]); "
        "print(sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)), file=sys.stderr); "
        "sys.exit(code)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program, *argv], env=environment, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert done.stderr.endswith("[]\n")
    if argv == ["--help"]:
        assert all(re.search(rf"^  {command} +\w", done.stdout, re.MULTILINE) for command in COMMANDS)
    if argv == ["--version"]:
        assert re.fullmatch(r"etegrec_hf \d+\.\d+\.\d+\S*\n", done.stdout)


# One document on stdout


def document(capsys, *argv):
    """Returns the document that a command prints with --json, and checks that stdout holds nothing else."""
    call(*argv, "--json")
    return json.loads(capsys.readouterr().out)


def test_measurements_as_a_document(prepared_folder, model_folder, tokenizer_folder, tmp_path, capsys):
    output = tmp_path / "m.json"
    evaluate = ["evaluate", "--model", model_folder, "--data", prepared_folder, "--num-beams", 10, "--output", output]
    printed = document(capsys, *evaluate)
    assert set(printed["test"]) == {f"{name}@{k}" for name in ("recall", "ndcg") for k in (1, 5, 10)}
    assert printed == json.loads(output.read_text())
    printed = document(capsys, "baselines", "--data", prepared_folder, "--output", output)
    assert printed["protocol"]["split"] == "test"
    assert {"popularity", "transitions"} <= set(printed["baselines"])
    assert printed == json.loads(output.read_text())
    printed = document(capsys, "diagnose", "--tokenizer", tokenizer_folder, "--data", prepared_folder)
    ((name, figures),) = printed.items()
    assert name == Path(tokenizer_folder).name
    assert 0 <= figures["usage_0"] <= 1


def test_evaluation_shows_how_far_it_is(prepared_folder, model_folder, capsys):
    call("evaluate", "--model", model_folder, "--data", prepared_folder, "--num-beams", 10, "--batch-size", 30)
    printed = capsys.readouterr()
    assert re.search(r"^evaluating 120/120, [\d,]+ users/s$", printed.err, re.MULTILINE)
    assert "this model" in printed.out
    assert "evaluating" not in printed.out


def test_recommendations_as_a_document(prepared, prepared_folder, model_folder, tmp_path, capsys):
    history = ",".join(prepared.item_ids[:3])
    printed = document(capsys, "recommend", "--model", model_folder, "--history", history, "--top-k", 4)
    assert [row["rank"] for row in printed] == [1, 2, 3, 4]
    assert {row["item_id"] for row in printed} <= set(prepared.item_ids)
    scores = [row["score"] for row in printed]
    assert scores == sorted(scores, reverse=True)
    output = tmp_path / "all.parquet"
    printed = document(capsys, "recommend", "--model", model_folder, "--data", prepared_folder, "--output", output)
    assert printed == {"users": 120, "empty": 0, "output": str(output)}


@pytest.mark.usefixtures("undrawn_pictures")
def test_training_tells_its_logs_elsewhere(prepared_folder, tmp_path, capsys):
    """With `--disable-tqdm`, transformers prints its logs on stdout."""
    train = ["train-tokenizer", "--data", prepared_folder, "--output-dir", tmp_path / "t", "--hidden-sizes", 8,
             "--latent-size", 4, "--num-levels", 2, "--codebook-size", 8, "--num-train-epochs", 1, "--use-cpu", "true",
             "--disable-tqdm", "true"]  # fmt: skip
    printed = document(capsys, *train)
    assert printed == json.loads((tmp_path / "t/diagnostics.json").read_text())


def test_preparing_as_a_document(tmp_path, capsys):
    lines = [f"u{user},i{(user + step) % 9}" for user in range(12) for step in range(6)]
    (tmp_path / "log.csv").write_text("\n".join(["user_id,item_id", *lines]))
    printed = document(capsys, "prepare", tmp_path / "log.csv", "--format", "csv", "--output-dir", tmp_path / "data",
                       "--min-count", 1)  # fmt: skip
    assert printed["items"] == 9
    assert printed["users"] == 12


def test_the_quickstart_as_a_document(monkeypatch, tmp_path, capsys):
    def quickstart(arguments):
        print("three users")
        return {"test": {"recall@1": float("nan")}, "baselines": {}, "optimum": {}, "seconds": 1.0}

    monkeypatch.setattr("etegrec_hf.cli.quickstart.quickstart", quickstart)
    printed = document(capsys, "quickstart", "--output-dir", tmp_path)
    assert printed["test"] == {"recall@1": None}, "NaN is no JSON"


def test_the_environment(capsys):
    told = document(capsys, "env")
    for name in ("etegrec_hf", "torch", "transformers", "trl", "accelerate", "datasets", "huggingface_hub",
                 "safetensors", "Python", "OS", "CPU", "CPU capability", "threads", "memory", "GPUs"):  # fmt: skip
        assert told[name], name
    call("env")
    assert capsys.readouterr().out.splitlines() == [f"- {name}: {value}" for name, value in told.items()]


# Completion, by the shell itself


@pytest.fixture(scope="module")
def completion_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "etegrec"
    path.write_text(script())
    return path


def completed(path: Path, *words: str) -> list[str]:
    """Returns the words that bash offers for the last word, without starting other programs."""
    program = (
        'source "$0"; complete -p etegrec > /dev/null || exit 3; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); '
        '_etegrec; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    command = ["/bin/bash", "-c", program, path, "etegrec", *words]
    done = subprocess.run(command, env={"PATH": ""}, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.split()


def test_bash_completes_commands_and_options(completion_file):
    assert completed(completion_file, "t") == ["train-tokenizer", "train"]
    assert set(completed(completion_file, "")) == {*COMMANDS, "--help", "--version"}
    assert completed(completion_file, "recommend", "--his") == ["--history", "--histories"]
    assert completed(completion_file, "finetune", "--data", "d", "--add") == ["--add-items"]
    assert completed(completion_file, "evaluate", "--add") == []
    assert completed(completion_file, "recommend", "--model", "ru") == []  # a file, which bash completes itself
    for command in COMMANDS:
        assert {"--help", "--config"} <= set(completed(completion_file, command, "--")), command


def test_completion_for_two_shells(completion_file, capsys, monkeypatch):
    monkeypatch.setattr("etegrec_hf.cli.completion.script", lambda: "SCRIPT\n")
    call("completion", "bash")
    assert capsys.readouterr().out == "SCRIPT\n"
    call("completion", "zsh")
    assert capsys.readouterr().out.endswith("bashcompinit\nSCRIPT\n")
    with pytest.raises(SystemExit) as stop:
        main(["completion", "fish"])
    assert stop.value.code == 2
