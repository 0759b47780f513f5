from dataclasses import dataclass, field

import pytest

from etegrec_hf import ETEGRecTrainingArguments
from etegrec_hf.cli.main import main
from etegrec_hf.cli.parsing import parse


@dataclass
class Sizes:
    data: str
    width: int = 4
    rate: float = 0.1
    layers: list[int] = field(default_factory=lambda: [1])


@dataclass
class Patience:
    patience: int | None = 5


@dataclass
class Other:
    name: str | None = None


def test_the_command_line_wins_over_the_file(tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text("data: here\nwidth: 8\nrate: 5e-3\nlayers: [2, 3]\nname: n\n")
    sizes, other = parse("x", ["--config", str(config), "--width", "16"], Sizes, Other)
    assert sizes == Sizes("here", 16, 0.005, [2, 3])
    assert other == Other("n")
    assert parse("x", ["--data", "d"], Sizes, Other) == (Sizes("d"), Other())


def test_a_key_that_does_not_exist_is_an_error_with_the_nearest(tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text("data: here\nwidht: 8\n")
    with pytest.raises(ValueError, match=r"config key 'widht' in .* does not exist; did you mean 'width'"):
        parse("x", ["--config", str(config)], Sizes)
    config.write_text("zzz: 8\n")
    with pytest.raises(ValueError, match=r"config key 'zzz' .* see --help"):
        parse("x", ["--config", str(config)], Sizes)


def test_types_in_the_file_are_checked_as_on_the_command_line(tmp_path, capsys):
    config = tmp_path / "c.yaml"
    config.write_text("data: here\nwidth: 2.5\n")
    with pytest.raises(SystemExit) as stop:
        parse("x", ["--config", str(config)], Sizes)
    assert stop.value.code == 2
    assert "argument --width: invalid int value: '2.5'" in capsys.readouterr().err
    config.write_text("data: 2.0\nwidth: 2.0\nrate: 2.0\n")
    assert parse("x", ["--config", str(config)], Sizes) == (Sizes("2.0", width=2, rate=2.0),)
    config.write_text("data: here\nlayers: [2.0, 3]\n")
    assert parse("x", ["--config", str(config)], Sizes) == (Sizes("here", layers=[2, 3]),)
    config.write_text("data: 7\nlayers: 3\n")
    assert parse("x", ["--config", str(config)], Sizes) == (Sizes("7", layers=[3]),)
    config.write_text("data: here\npatience: null\n")
    assert parse("x", ["--config", str(config)], Sizes, Patience) == (Sizes("here"), Patience(None))


def test_a_strategy_that_yaml_reads_as_false_is_no(tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text("output_dir: x\nsave_strategy: no\neval_strategy: no\nload_best_model_at_end: no\n")
    (arguments,) = parse("x", ["--config", str(config)], ETEGRecTrainingArguments)
    assert (arguments.save_strategy, arguments.eval_strategy, arguments.load_best_model_at_end) == ("no", "no", False)


def test_an_empty_list_is_an_empty_list(tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text("data: d\nlayers: []\noutput_dir: x\ninclude_for_metrics: []\n")
    sizes, arguments = parse("x", ["--config", str(config)], Sizes, ETEGRecTrainingArguments)
    assert (sizes.layers, arguments.include_for_metrics) == ([], [])
    assert parse("x", ["--config", str(config), "--layers", "3"], Sizes, ETEGRecTrainingArguments)[0].layers == [3]


def test_what_is_no_yaml_mapping_is_an_error(tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text("data: [1, 2\n")
    with pytest.raises(ValueError, match=r"c.yaml isn't YAML: .*; repair it"):
        parse("x", ["--config", str(config)], Sizes)
    config.write_text("- data\n")
    with pytest.raises(ValueError, match="holds a list; it needs `name: value` lines"):
        parse("x", ["--config", str(config)], Sizes)


def test_exit_codes(tmp_path, capsys):
    assert main(["--help"]) == 0
    assert main([]) == 2
    assert main(["dance"]) == 2
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", "--nonsense", "1"])
    assert stop.value.code == 2
    assert main(["evaluate", "--model", str(tmp_path), "--data", str(tmp_path)]) == 1
    assert main(["recommend", "--model", str(tmp_path), "--history", "a"]) == 1
    error = capsys.readouterr().err.replace("\n", "")
    assert "etegrec recommend:" in error
    assert "holds no model (no config.json)" in error
    with pytest.raises(FileNotFoundError):
        main(["recommend", "--model", str(tmp_path), "--history", "a", "--debug"])


def test_misspelled_arguments_and_commands_get_the_nearest(capsys):
    with pytest.raises(SystemExit) as stop:
        parse("x", ["--data", "d", "--widht", "8"], Sizes)
    assert stop.value.code == 2
    assert "unknown argument '--widht'; did you mean '--width'?" in capsys.readouterr().err
    assert main(["recomend"]) == 2
    assert "unknown command 'recomend'; did you mean 'recommend'?" in capsys.readouterr().err
