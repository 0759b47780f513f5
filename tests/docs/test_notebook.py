"""`examples/quickstart.ipynb` runs from its first cell to its last, and holds the outputs of its code."""

import os
import re
from pathlib import Path

import nbformat
import pytest
from docs_scripts import load_script

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "examples/quickstart.ipynb"
LARGEST = 200_000  # bytes of the notebook with its pictures


@pytest.fixture(scope="module")
def script():
    return load_script("execute_notebook")


def outputs_of(notebook) -> list[list[str]]:
    """The kinds of outputs of each cell with code."""
    return [
        [output.get("name", "picture") for output in cell.outputs]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def test_its_outputs_are_those_of_its_code(script):
    """After a change of code `make notebook` makes them anew."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert notebook.metadata[script.OUTPUTS_OF] == script.code_hash(notebook), "run `make notebook`"
    kinds = outputs_of(notebook)
    assert sum(cell.count("picture") for cell in kinds) == 3
    assert {kind for cell in kinds for kind in cell} == {"picture", "stdout"}
    assert NOTEBOOK.stat().st_size < LARGEST
    stored = NOTEBOOK.read_text()
    assert not re.search(r"/tmp/|/root/|/home/|Warning", stored), "nothing of the machine that it ran on"


def test_a_change_of_code_is_noticed_and_one_of_words_is_not(script):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    before = script.code_hash(notebook)
    words, code, *_ = notebook.cells
    words.source += " More words."
    assert script.code_hash(notebook) == before
    code.source += "\nprint()"
    assert script.code_hash(notebook) != before


@pytest.mark.slow
def test_it_runs_and_after_fewer_epochs_its_model_beats_both_baselines(script, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "jupyter"))
    kinds = outputs_of(nbformat.read(NOTEBOOK, as_version=4))
    shorter = nbformat.reads(NOTEBOOK.read_text().replace("epochs=6", "epochs=4"), as_version=4)
    notebook = script.executed(shorter, str(tmp_path), timeout=300)
    assert outputs_of(notebook) == kinds
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    text = "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")
    recall = {name.strip(): float(value) for name, value in re.findall(r"^(.+?) Recall@10 (\S+)$", text, re.MULTILINE)}
    assert recall["this model"] > max(recall["popularity"], recall["transitions"])
    assert recall["this model"] > 0.7 * recall["optimum"]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 3
    assert re.search(r"took: .+\n +-\d+\.\d\d  \S", text), "titles stand beside scores"
