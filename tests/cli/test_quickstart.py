import json

import numpy as np
import pytest
from html_reader import Page

from etegrec_hf.cli.main import main
from etegrec_hf.cli.quickstart import show_three_users
from etegrec_hf.data.prepared import PreparedDataset, Split
from etegrec_hf.hub.model_folder import save_model_folder
from etegrec_hf.hub.training_record import TrainingRecord


@pytest.mark.slow
def test_quickstart_reaches_most_of_the_known_optimum(tmp_path):
    """A smaller setting of `etegrec quickstart`: above both baselines and near what can be reached at all."""
    wanted = ["--n-users", "2500", "--n-items", "160", "--epochs", "2", "--finetune-epochs", "5"]
    assert main(["quickstart", "--output-dir", str(tmp_path / "run"), *wanted]) == 0
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    reached = metrics["test"]["recall@10"]
    assert reached >= 0.8 * metrics["optimum"]["recall@10"]
    assert reached > metrics["baselines"]["transitions"]["recall@10"]
    assert reached > metrics["baselines"]["popularity"]["recall@10"]
    assert metrics["seconds"] > 0
    assert metrics["protocol"]["split"] == "test"
    assert set(metrics["seeds"].values()) == {0}
    for name in ("data", "tokenizer", "alternating", "model"):
        assert (tmp_path / "run" / name).is_dir()
    page = Page((tmp_path / "run/report.html").read_text(encoding="utf-8"))
    assert {"curves-1", "curves-2"} <= page.sections.keys(), "of both stages"
    _, test, *parts = page.sections["results"]
    assert test[-1][0] == "known optimum"
    assert len(parts) == len(metrics["parts"]) == 2


@pytest.mark.parametrize("epochs", [0, 1, 3])
def test_odd_numbers_of_epochs_are_refused_before_anything_is_written(tmp_path, capsys, epochs):
    assert main(["quickstart", "--output-dir", str(tmp_path / "run"), "--epochs", str(epochs)]) == 1
    assert f"`epochs` is {epochs}; give an even number from 2 on" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_three_users_are_shown_if_there_are_three(model, tokenizer, tmp_path, capsys):
    save_model_folder(tmp_path / "model", model, tokenizer, TrainingRecord())
    users = ["a", "b"]
    split = Split(users, np.array([1, 2, 3, 4]), np.array([0, 2, 4]))
    titles = [f"Title {number}" for number in range(1, 41)]
    data = PreparedDataset(tokenizer.item_ids, titles, None, split, split, split, {})
    show_three_users(str(tmp_path / "model"), data)
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines() if " took: " in line] == users
