"""`import-codes`, and finetuning a published model on another log."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from etegrec_hf import ETEGRecForConditionalGeneration, ETEGRecTokenizer
from etegrec_hf.cli.main import main
from etegrec_hf.data.prepared import PreparedDataset
from etegrec_hf.data.transitions import strongest_transitions
from etegrec_hf.hub.model_folder import save_model_folder
from etegrec_hf.hub.training_record import TrainingRecord

pytestmark = pytest.mark.usefixtures("undrawn_pictures")
SIZES = [
    "--d-model",
    "16",
    "--d-ff",
    "16",
    "--d-kv",
    "8",
    "--num-layers",
    "1",
    "--num-decoder-layers",
    "1",
    "--num-heads",
    "2",
]
TINY = ["--use-cpu", "true", "--disable-tqdm", "true", "--num-train-epochs", "1", "--num-beams", "10"]


def call(*argv) -> None:
    assert main([str(argument) for argument in argv]) == 0


def failure(capsys, *argv) -> str:
    assert main([str(argument) for argument in argv]) == 1
    return capsys.readouterr().err


def prepare(
    folder: Path, name: str, items: list[str], width: int | None = None, known: dict[str, np.ndarray] | None = None
) -> Path:
    """A prepared log of 20 users over these items, with random embeddings of a width but for those that are known."""
    lines = ["user_id,item_id,title"]
    for user in range(20):
        lines += [f"u{user},{items[(user * 5 + step * 3) % len(items)]},About {user}" for step in range(5)]
    (folder / f"{name}.csv").write_text("\n".join(lines))
    more = []
    if width:
        embeddings = np.random.default_rng(0).normal(size=(len(items), width)).astype(np.float32)
        for item_id, values in (known or {}).items():
            embeddings[items.index(item_id)] = values
        column = pa.FixedSizeListArray.from_arrays(pa.array(embeddings.ravel()), width)
        pq.write_table(pa.table({"item_id": items, "embedding": column}), folder / f"{name}.parquet")
        more = ["--embedding", folder / f"{name}.parquet"]
    call("prepare", folder / f"{name}.csv", "--format", "csv", "--output-dir", folder / name, "--min-count", 1, *more)
    return folder / name


@pytest.fixture
def index(tmp_path) -> Path:
    """An index of codes from elsewhere for items a, b, ..., j, and one item that nobody took."""
    codes = {letter: [f"<a_{number % 3}>", f"<b_{number}>"] for number, letter in enumerate("abcdefghij")}
    (tmp_path / "X.index.json").write_text(json.dumps({"unseen": ["<a_2>", "<b_12>"], **codes}))
    return tmp_path / "X.index.json"


def test_codes_from_elsewhere_are_trained_on(index, tmp_path):
    data = prepare(tmp_path, "data", list("jihgfedcba"))
    call("import-codes", index, "--data", data, "--output-dir", tmp_path / "start", *SIZES)
    call("finetune", "--model", tmp_path / "start", "--data", data, "--output-dir", tmp_path / "model", *TINY)
    model = ETEGRecForConditionalGeneration.from_pretrained(tmp_path / "model").eval()
    tokenizer = ETEGRecTokenizer.from_pretrained(tmp_path / "model")
    assert model.item_tokenizer is None
    assert "RQ-VAE" not in (tmp_path / "model" / "README.md").read_text()
    assert tokenizer.item_ids == PreparedDataset.load(data).item_ids
    given = json.loads(index.read_text())
    for item_id in "abcdefghij":
        (row,) = tokenizer.index_of([item_id])
        assert tokenizer.convert_ids_to_tokens(tokenizer.item_tokens[row].tolist()) == given[item_id]
    items, _ = model.recommend(**tokenizer([["a", "b"]], return_tensors="pt"), top_k=10)
    assert sorted(tokenizer.ids_of(items[0])) == list("abcdefghij")
    with pytest.raises(ValueError, match="`has_item_tokenizer` is False"):
        model.add_items(["new"], torch.zeros(1, 4), tokenizer)


def test_transitions_are_those_of_the_data_that_was_trained_on(index, tmp_path, capsys):
    data = prepare(tmp_path, "data", list("abcdefghij"))
    call("import-codes", index, "--data", data, "--output-dir", tmp_path / "start", "--num-transitions", 3, *SIZES)
    start = ETEGRecForConditionalGeneration.from_pretrained(tmp_path / "start")
    with pytest.raises(ValueError, match="the model keeps no transitions"):
        start.recommend(**start.catalogue.inputs_from_items(torch.tensor([[1]])), transition_weight=0.5)
    call("finetune", "--model", tmp_path / "start", "--data", data, "--output-dir", tmp_path / "model", *TINY)
    model = ETEGRecForConditionalGeneration.from_pretrained(tmp_path / "model").eval()
    items, weights = strongest_transitions(PreparedDataset.load(data), 3)
    assert torch.equal(model.catalogue.transitions.items[1:], items.int())
    assert torch.equal(model.catalogue.transitions.weights[1:], weights)
    assert model.catalogue.item_counts.tolist() == PreparedDataset.load(data).item_counts.tolist()
    assert model.catalogue.item_counts.any()

    newer = prepare(tmp_path, "newer", list("jihgfedcba")[:6])  # other items come next to each other in it
    call("finetune", "--model", tmp_path / "model", "--data", newer, "--output-dir", tmp_path / "newest", *TINY)
    newest = ETEGRecForConditionalGeneration.from_pretrained(tmp_path / "newest")
    tokenizer = ETEGRecTokenizer.from_pretrained(tmp_path / "newest")
    items, _ = strongest_transitions(PreparedDataset.load(newer).with_items(tokenizer.item_ids), 3)
    assert torch.equal(newest.catalogue.transitions.items[1:], items.int())
    assert not newest.catalogue.transitions.weights[tokenizer.index_of(["a"])].any(), "which the newer log hasn't"

    streamed = ["--tokenizer", "any", "--stream", "true", "--num-transitions", 3]
    message = failure(capsys, "train", "--data", data, "--output-dir", tmp_path / "no", *streamed)
    assert "`num_transitions` is 3 and `stream` is True" in message


def test_without_data_all_of_the_index_is_the_catalogue(index, tmp_path):
    call("import-codes", index, "--output-dir", tmp_path / "start", "--codebook-size", 32, *SIZES)
    tokenizer = ETEGRecTokenizer.from_pretrained(tmp_path / "start")
    assert tokenizer.item_ids == ["unseen", *"abcdefghij"]
    assert ETEGRecForConditionalGeneration.from_pretrained(tmp_path / "start").config.codebook_size == 32


def test_codes_that_collide_need_a_suffix(index, tmp_path, capsys):
    codes = json.loads(index.read_text())
    index.write_text(json.dumps(codes | {"b": codes["a"]}))
    message = failure(capsys, "import-codes", index, "--output-dir", tmp_path / "start", *SIZES)
    assert "items 'a' and 'b' share the codes [0, 0]; pass --add-suffix true" in message
    assert not (tmp_path / "start").exists()
    call("import-codes", index, "--output-dir", tmp_path / "start", "--add-suffix", "true", *SIZES)
    tokenizer = ETEGRecTokenizer.from_pretrained(tmp_path / "start")
    assert tokenizer.code_length == 3
    assert [tokens[:2] for tokens in tokenizer._item_index().values()][1:3] == [codes["a"], codes["a"]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "can't be read"),
        ("[]", "maps no item"),
        ('{"a": ["<a_1>"], "a": ["<a_2>"]}', "occurs twice"),
        ('{"a": ["<a_1>", "<b_1>"], "b": ["<a_1>"]}', "item 'b'"),
        ('{"a": ["<b_1>"]}', "item 'a'"),
        ('{"a": ["<a_01>"]}', "item 'a'"),
        ('{"a": 5}', "item 'a'"),
        ('{"a": [1, 2]}', "item 'a'"),
        ('{"a": ["<a_99999999999999999999>"]}', "item 'a'"),
        ('{"a": []}', "item 'a'"),
        (
            '{"a": ["<a_0>"], "b": ["<a_1>"]}',
            "have one code each, but a recommender needs 2 or more codes per item; pass --add-suffix",
        ),
        (
            '{"a": ["<a_0>", "<b_0>"], "b": ["<a_99999999>", "<b_1>"]}',
            "has the code 99999999, and a level has at most 1048576 codes; repair",
        ),
    ],
)
def test_an_index_that_is_none_is_refused(index, tmp_path, capsys, content, message):
    index.write_text(content)
    assert message in failure(capsys, "import-codes", index, "--output-dir", tmp_path / "start", *SIZES)
    assert not (tmp_path / "start").exists()


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (0, "`codebook_size` is 0; give 1 or more"),
        (3, "item 'unseen' has the code 12, but `codebook_size` is 3; give 13"),
    ],
)
@pytest.mark.parametrize("suffix", ["true", "false"])
def test_a_codebook_size_that_does_not_hold_the_codes_is_refused(index, tmp_path, capsys, size, message, suffix):
    wanted = ("import-codes", index, "--output-dir", tmp_path / "start", "--add-suffix", suffix, *SIZES)
    assert message in failure(capsys, *wanted, "--codebook-size", size)


def test_codes_of_one_level_get_a_suffix(index, tmp_path):
    index.write_text('{"a": ["<a_0>"], "b": ["<a_1>"]}')
    call("import-codes", index, "--output-dir", tmp_path / "start", "--add-suffix", "true", *SIZES)
    assert ETEGRecTokenizer.from_pretrained(tmp_path / "start").code_length == 2


def test_an_index_of_other_data_is_refused(index, tmp_path, capsys):
    data = prepare(tmp_path, "data", ["a", "b", "z"])
    arguments = ("import-codes", index, "--data", data, "--output-dir", tmp_path / "start")
    assert "no codes for item 'z'" in failure(capsys, *arguments)
    gone = ("import-codes", tmp_path / "gone.json", "--output-dir", tmp_path / "start")
    assert "isn't a file" in failure(capsys, *gone)


@pytest.mark.slow
def test_a_published_model_is_finetuned_on_another_log_with_new_items(model, tokenizer, tmp_path, capsys):
    save_model_folder(tmp_path / "published", model, tokenizer, TrainingRecord(stages=[{"stage": "theirs"}]))
    known = prepare(tmp_path, "known", ["i7", "i3", "i20", "i4"])
    call("finetune", "--model", tmp_path / "published", "--data", known, "--output-dir", tmp_path / "one", *TINY)
    assert ETEGRecTokenizer.from_pretrained(tmp_path / "one").item_ids == tokenizer.item_ids
    call("evaluate", "--model", tmp_path / "one", "--data", known, "--num-beams", 10, "--update-card", "true")
    record = TrainingRecord.read(tmp_path / "one")
    assert [stage["stage"] for stage in record.stages] == ["theirs", "finetuning"]
    assert record.evaluations[0]["protocol"]["users"] == 20

    own = dict(zip(tokenizer.item_ids, model.catalogue.semantic_embedding[1:].numpy()))
    known_items = {item_id: own[item_id] for item_id in ("i7", "i3")}
    newer = prepare(tmp_path, "newer", ["i7", "brand new", "i3", "newest"], width=12, known=known_items)
    arguments = ("finetune", "--model", tmp_path / "one", "--data", newer, "--output-dir", tmp_path / "two", *TINY)
    message = failure(capsys, *arguments)
    assert "2 of the dataset's 4 items are not in the catalogue of 40, among them 'newest'" in message
    assert "--add-items true" in message
    without = prepare(tmp_path, "without", ["i7", "x"])
    message = failure(capsys, *arguments[:4], without, *arguments[5:], "--add-items", "true")
    assert "the dataset has none" in message
    narrow = prepare(tmp_path, "narrow", ["i7", "x"], width=5)
    message = failure(capsys, *arguments[:4], narrow, *arguments[5:], "--add-items", "true")
    assert "have width 5, but the model reads width 12" in message
    others = prepare(tmp_path, "others", ["i7", "x", "i3", "y"], width=12)
    message = failure(capsys, *arguments[:4], others, *arguments[5:], "--add-items", "true")
    assert "the embeddings were made in another way than the model's: of 2 items that both have, the mean" in message
    assert not (tmp_path / "two").exists()

    call(*arguments, "--add-items", "true")
    extended = ETEGRecForConditionalGeneration.from_pretrained(tmp_path / "two").eval()
    names = ETEGRecTokenizer.from_pretrained(tmp_path / "two")
    extended.catalogue.check_tokenizer(names)
    assert names.item_ids == [*tokenizer.item_ids, "newest", "brand new"]
    assert torch.equal(names.item_tokens[:41], tokenizer.item_tokens), "old items keep their codes"
    assert names.item_titles["brand new"].startswith("About")
    items, _ = extended.recommend(**names([["newest", "i7"]], return_tensors="pt"), top_k=42, num_beams=64)
    assert "brand new" in names.ids_of(items[0])
