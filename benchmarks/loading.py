"""Measures loading time and size of a published model of the specification's size, with 25,000 items.

    python benchmarks/loading.py

The model is saved with and without its embeddings, which are 1,024 wide, into local folders as they are published. A
new process without this package loads each folder twice, by the code in it. The second time is measured, when
transformers has that code in its cache.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from etegrec_hf import ETEGRecConfig, ETEGRecForConditionalGeneration, ETEGRecTokenizer, assign_item_codes
from etegrec_hf.hub.model_folder import save_model_folder
from etegrec_hf.hub.training_record import TrainingRecord

STRANGER = """
import json, sys, time
sys.modules["etegrec_hf"] = None  # importing it fails
seconds, start = {}, time.perf_counter()
def lap(name):
    global start
    seconds[name], start = time.perf_counter() - start, time.perf_counter()
import torch
from transformers import AutoModel, AutoTokenizer, GenerationMixin, PreTrainedModel, pipeline
from transformers.models.t5 import modeling_t5
lap("import")
recommend = pipeline("sequential-recommendation", model=sys.argv[1], trust_remote_code=True)
lap("load")
recommend(["i1", "i2"])
lap("first recommendation")
print(json.dumps(seconds))
"""


def published(folder: Path, n_items: int) -> dict[str, Path]:
    """Saves a model, and returns its folders with and without embeddings."""
    torch.manual_seed(0)
    model = ETEGRecForConditionalGeneration(ETEGRecConfig(n_items=n_items))
    codes = assign_item_codes(torch.randint(0, 256, (n_items, 3)), 256)
    model.set_item_codes(codes)
    model.catalogue.set_semantic_embedding(torch.randn(n_items, 1024))
    ids = [f"i{number}" for number in range(1, n_items + 1)]
    titles = {item_id: f"The title of {item_id}, which is as long as titles are" for item_id in ids}
    tokenizer = ETEGRecTokenizer.from_item_codes(ids, codes, 256, item_titles=titles)
    save_model_folder(folder / "with", model, tokenizer, TrainingRecord())
    model.config.has_semantic_embedding, model.catalogue.semantic_embedding = False, None
    save_model_folder(folder / "without", model, tokenizer, TrainingRecord())
    return {name: folder / name for name in ("with", "without")}


def load(folder: Path) -> dict[str, float]:
    """Returns the seconds of each step in a new process."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", STRANGER, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=25_000)
    arguments = parser.parse_args()
    print(
        "| embeddings | folder, MB | import, s | load, s | first recommendation, s |\n| --- | --- | --- | --- | --- |"
    )
    with tempfile.TemporaryDirectory() as temporary:
        for name, folder in published(Path(temporary), arguments.items).items():
            load(folder)
            seconds = load(folder)
            size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
            print(f"| {name} | {size:.1f} | " + " | ".join(f"{value:.2f}" for value in seconds.values()) + " |")


if __name__ == "__main__":
    main()
