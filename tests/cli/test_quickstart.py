import json

import pytest
from html_reader import Page

from etegrec_hf.cli.main import main


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
