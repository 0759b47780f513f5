"""`make notebook`: runs `examples/quickstart.ipynb` and keeps its outputs in it, so that viewers show them.

A test compares the code that the outputs were made by, kept as a hash, with the code that is there.
"""

import hashlib
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "examples/quickstart.ipynb"
OUTPUTS_OF = "outputs_of"  # the entry of the notebook's metadata that holds the hash


def code_hash(notebook: nbformat.NotebookNode) -> str:
    """The hash of all code of a notebook."""
    code = "\0".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    return hashlib.sha256(code.encode()).hexdigest()


def executed(notebook: nbformat.NotebookNode, folder: str, timeout: int) -> nbformat.NotebookNode:
    """Returns a notebook with the outputs of a run in a folder: what was printed, and pictures."""
    metadata = dict(notebook.metadata)
    NotebookClient(notebook, timeout=timeout, resources={"metadata": {"path": folder}}).execute()
    for cell in notebook.cells:
        cell.metadata = {}  # without times
        if cell.cell_type == "code":
            cell.outputs = kept(cell.outputs)
    notebook.metadata = nbformat.from_dict(metadata | {OUTPUTS_OF: code_hash(notebook)})
    return notebook


def kept(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """What a cell printed, without what a Trainer logs, and its pictures."""
    printed = "".join(output.text for output in outputs if output.get("name") == "stdout")
    lines = [line for line in printed.splitlines() if line and not line.startswith("{")]
    texts = [nbformat.v4.new_output("stream", name="stdout", text="\n".join(lines) + "\n")] if lines else []
    images = [output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    return texts + [nbformat.v4.new_output("display_data", data={"image/png": image}) for image in images]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        notebook = executed(nbformat.read(NOTEBOOK, as_version=4), folder, timeout=900)
    nbformat.write(notebook, NOTEBOOK)
