"""Recommendations for a whole dataset, against those for each user."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tiny_models import make_model, random_codes

from etegrec_hf import ETEGRecTokenizer, RecommendOptions, UserHistories, batch_recommend, recommend_rows
from etegrec_hf.data.transitions import strongest_transitions
from etegrec_hf.evaluation import batch_recommend as module
from etegrec_hf.evaluation import row_constraints
from etegrec_hf.evaluation.recommend_split import recommend_split
from etegrec_hf.models.search_options import SearchOptions

SIZES = {"batch_size": 7, "shard_size": 50}  # of 120 users: three shards


@pytest.fixture
def recommender(prepared):
    """A recommender of the prepared dataset's items."""
    codes = random_codes(prepared.n_items, 3, 8)
    return make_model(codes, 8), ETEGRecTokenizer.from_item_codes(prepared.item_ids, codes, 8)


@pytest.fixture
def output(tmp_path) -> Path:
    return tmp_path / "out.parquet"


def test_every_user_gets_what_they_get_alone(prepared, prepared_folder, recommender, output):
    model, tokenizer = recommender
    counts = batch_recommend(*recommender, prepared_folder, output, RecommendOptions(top_k=5, **SIZES))
    assert counts == {"users": 120, "empty": 0}
    table = pq.read_table(output)
    assert table.schema.equals(
        pa.schema({"user_id": pa.string(), "items": pa.list_(pa.string()), "scores": pa.list_(pa.float32())})
    )
    assert table["user_id"].to_pylist() == prepared.test.user_ids
    for row, (items, scores) in enumerate(zip(table["items"].to_pylist(), table["scores"].to_pylist())):
        start, end = prepared.test.offsets[row : row + 2]
        history = [prepared.item_ids[index - 1] for index in prepared.test.sequences[start:end]]
        index, score = model.recommend(**tokenizer([history], return_tensors="pt"), top_k=5, num_beams=20)
        assert items == tokenizer.ids_of(index[0])
        torch.testing.assert_close(torch.tensor(scores), score[0], atol=1e-5, rtol=0)


def test_options_reach_the_search(prepared, prepared_folder, output):
    codes = random_codes(prepared.n_items, 3, 8)
    model = make_model(codes, 8, num_transitions=10)
    model.catalogue.set_transitions(*strongest_transitions(prepared, 10))
    tokenizer = ETEGRecTokenizer.from_item_codes(prepared.item_ids, codes, 8)
    weights = {"rerank_weight": 0.5, "transition_weight": 0.4}
    options = RecommendOptions(top_k=5, include_target=False, **weights, **SIZES)
    batch_recommend(model, tokenizer, prepared_folder, output, options)
    ranked, plain = (
        recommend_split(model, prepared.test, SearchOptions(top_k=5, num_beams=20, **some))
        for some in (weights, {"rerank_weight": 0.5})
    )
    assert pq.read_table(output)["items"].to_pylist() == tokenizer.ids_of(ranked)
    assert (ranked != plain).any()


def test_without_the_target_it_is_what_evaluation_ranks(prepared, prepared_folder, recommender, output):
    model, tokenizer = recommender
    options = RecommendOptions(top_k=5, num_beams=8, split="validation", include_target=False, **SIZES)
    batch_recommend(*recommender, prepared_folder, output, options)
    ranked = recommend_split(model, prepared.validation, SearchOptions(top_k=5, num_beams=8))
    assert pq.read_table(output)["items"].to_pylist() == tokenizer.ids_of(ranked)


def test_all_of_a_history_is_excluded_also_what_is_not_read(prepared, prepared_folder, recommender, output):
    model, tokenizer = recommender
    model.config.max_history = 3
    batch_recommend(*recommender, prepared_folder, output, RecommendOptions(top_k=5, exclude_history=True, **SIZES))
    listed = pq.read_table(output)["items"].to_pylist()
    longer = 0
    for row, items in enumerate(listed):
        start, end = prepared.test.offsets[row : row + 2]
        history = prepared.test.sequences[start:end]
        longer += len(history) > 3
        assert len(items) == 5
        assert not set(tokenizer.index_of(items)) & set(history.tolist())
    assert longer > 50


def test_lists_longer_than_the_catalogue_end_where_it_ends(prepared, prepared_folder, recommender, output):
    batch_recommend(*recommender, prepared_folder, output, RecommendOptions(top_k=70, **SIZES))
    table = pq.read_table(output)
    assert {len(set(items)) for items in table["items"].to_pylist()} == {60}
    assert np.isfinite(table["scores"].combine_chunks().flatten().to_numpy()).all()


def test_bfloat16_is_close(prepared_folder, recommender, tmp_path):
    scores = []
    for bf16 in (False, True):
        options = RecommendOptions(top_k=60, num_beams=60, bf16=bf16)
        batch_recommend(*recommender, prepared_folder, tmp_path / f"{bf16}.parquet", options)
        scores.append(pq.read_table(tmp_path / f"{bf16}.parquet")["scores"].combine_chunks().flatten().to_numpy())
    np.testing.assert_allclose(*scores, atol=0.1)
    assert (scores[0] != scores[1]).any()


def rows(*users: tuple[str, list[str], str]) -> pa.Table:
    return pa.table(dict(zip(("user_id", "history", "target"), map(list, zip(*users)))))


def test_unknown_items_are_an_error_or_skipped(model, tokenizer):
    users = rows(("a", ["i1", "x", "i2"], "i3"), ("b", ["x"], "y"), ("c", ["x"], "i4"))
    with pytest.raises(ValueError, match=r"item 'x' is not in the model's catalogue of 40 items; .*--unknown skip"):
        recommend_rows(model, tokenizer, users, RecommendOptions())
    skipping = recommend_rows(model, tokenizer, users, RecommendOptions(unknown="skip"))
    kept = recommend_rows(model, tokenizer, rows(("a", ["i1", "i2"], "i3"), ("c", [], "i4")), RecommendOptions())
    assert skipping["items"].to_pylist() == [kept["items"][0].as_py(), [], kept["items"][1].as_py()]
    assert [len(scores) for scores in skipping["scores"].to_pylist()] == [10, 0, 10]
    without = recommend_rows(model, tokenizer, users, RecommendOptions(unknown="skip", include_target=False))
    assert [len(items) for items in without["items"].to_pylist()] == [10, 0, 0]
    nobody = recommend_rows(model, tokenizer, users.slice(1, 1), RecommendOptions(unknown="skip"))
    assert nobody["items"].to_pylist() == [[]]
    with pytest.raises(
        ValueError, match="user 'b' of `rows` has no item that the model knows, and `on_empty` is 'error'"
    ):
        recommend_rows(model, tokenizer, users, RecommendOptions(unknown="skip", on_empty="error"))


def test_unknown_items_of_a_dataset_are_found_first(model, tokenizer, prepared_folder, output, monkeypatch):
    monkeypatch.setattr(module, "recommend_rows", lambda *_: pytest.fail("too late"))
    with pytest.raises(ValueError, match="is not in the model's catalogue of 40 items"):
        batch_recommend(model, tokenizer, prepared_folder, output)
    assert not list(output.parent.iterdir())
    monkeypatch.undo()
    counts = batch_recommend(model, tokenizer, prepared_folder, output, RecommendOptions(unknown="skip"))
    assert counts == {"users": 120, "empty": 120}


def test_empty_cells_are_an_error(model, tokenizer):
    users = rows(("a", ["i1"], "i2"), ("b", ["i1"], None))
    with pytest.raises(ValueError, match="column 'target' has 1 empty cells; prepare the dataset again"):
        recommend_rows(model, tokenizer, users, RecommendOptions())


@pytest.mark.parametrize("name", ["top_k", "num_beams", "batch_size", "shard_size"])
def test_numbers_below_one_are_an_error(name):
    with pytest.raises(ValueError, match=f"`{name}` is 0; give 1 or more"):
        RecommendOptions(**{name: 0})


def test_choices_that_do_not_exist_are_an_error():
    with pytest.raises(ValueError, match="`split` is 'tests'; choose one of train, validation, test"):
        RecommendOptions(split="tests")
    with pytest.raises(ValueError, match="`unknown` is 'drop'; choose one of error, skip"):
        RecommendOptions(unknown="drop")


class Stop(Exception):
    pass


@pytest.fixture
def interrupted(prepared_folder, recommender, output, monkeypatch):
    """A run that stopped in its third shard, and a function that continues it and returns the shards it decodes."""
    started = []

    def stopping(model, tokenizer, rows, options, *others):
        started.append(rows["user_id"][0].as_py())
        if len(started) == 3:
            raise Stop
        return recommend_rows(model, tokenizer, rows, options, *others)

    monkeypatch.setattr(module, "recommend_rows", stopping)
    with pytest.raises(Stop):
        batch_recommend(*recommender, prepared_folder, output, RecommendOptions(**SIZES))
    assert not output.exists()

    def again(model=recommender[0], tokenizer=recommender[1], data=prepared_folder, resume=True, **options):
        earlier = len(started)
        batch_recommend(model, tokenizer, data, output, RecommendOptions(**SIZES | options), resume=resume)
        return len(started) - earlier

    return again


def shards(output: Path) -> Path:
    return output.with_name("out.parquet.shards")


def undisturbed(recommender, prepared_folder, tmp_path) -> bytes:
    batch_recommend(*recommender, prepared_folder, tmp_path / "other.parquet", RecommendOptions(**SIZES))
    return (tmp_path / "other.parquet").read_bytes()


def test_resuming_makes_what_is_missing(interrupted, recommender, prepared_folder, output, tmp_path):
    assert interrupted() == 1
    assert output.read_bytes() == undisturbed(recommender, prepared_folder, tmp_path)
    assert not shards(output).exists()
    assert interrupted() == 0  # all is done


@pytest.mark.parametrize("damage", ["truncated", "changed"])
def test_a_damaged_shard_is_made_again(interrupted, recommender, prepared_folder, output, tmp_path, caplog, damage):
    shard = shards(output) / "shard-00000.parquet"
    whole = bytearray(shard.read_bytes())
    if damage == "truncated":
        whole = whole[:-100]
    else:
        whole[len(whole) // 3] ^= 1
    shard.write_bytes(whole)
    module.logger.addHandler(caplog.handler)
    assert interrupted() == 2
    module.logger.removeHandler(caplog.handler)
    assert f"{shard} is damaged and will be made again." in caplog.text
    assert output.read_bytes() == undisturbed(recommender, prepared_folder, tmp_path)


def test_what_is_there_is_left_alone_without_resume(interrupted, output):
    before = sorted(path.name for path in shards(output).iterdir())
    with pytest.raises(FileExistsError, match=r"out.parquet.shards' already exists; pass --resume true to continue"):
        interrupted(resume=False)
    assert (
        sorted(path.name for path in shards(output).iterdir())
        == before
        == [
            "manifest.json",
            "shard-00000.parquet",
            "shard-00001.parquet",
        ]
    )
    interrupted()
    with pytest.raises(FileExistsError, match=r"out.parquet' already exists; .* or name another `output`"):
        interrupted(resume=False)


def test_shards_of_another_run_are_an_error(interrupted, recommender, prepared, prepared_folder, tmp_path):
    model, _ = recommender
    with pytest.raises(
        ValueError, match="belongs to another run: its `top_k` is 10, but this run's is 9; continue with the same"
    ):
        interrupted(top_k=9)
    weight = model.shared.weight[3, 3].item()
    with torch.no_grad():
        model.shared.weight[3, 3] += 1
    with pytest.raises(ValueError, match=r"its `weights` is '[0-9a-f]{16}', but this run's is '[0-9a-f]{16}'"):
        interrupted()
    with torch.no_grad():
        model.shared.weight[3, 3] = weight
    ids = [prepared.item_ids[1], prepared.item_ids[0], *prepared.item_ids[2:]]
    renamed = ETEGRecTokenizer.from_item_codes(ids, model.catalogue.item_codes, 8)
    with pytest.raises(ValueError, match="its `items` is"):
        interrupted(tokenizer=renamed)
    shutil.copytree(prepared_folder, tmp_path / "data")
    test = tmp_path / "data/sequences/test.parquet"
    pq.write_table(pq.read_table(test).slice(0, 119), test)
    with pytest.raises(ValueError, match="its `data` is"):
        interrupted(data=tmp_path / "data")


def test_a_finished_file_of_another_run_is_an_error(interrupted, output):
    interrupted()
    with pytest.raises(
        ValueError, match="belongs to another run: its `exclude_history` is False, but this run's is True"
    ):
        interrupted(exclude_history=True)
    pq.write_table(pa.table({"user_id": ["u"]}), output)
    with pytest.raises(ValueError, match="wasn't written by this command; remove it"):
        interrupted()


def test_a_folder_without_a_manifest_is_an_error(interrupted, output):
    (shards(output) / "manifest.json").write_text('{"config": ')
    with pytest.raises(ValueError, match=r"holds no readable manifest.json"):
        interrupted()


def test_a_run_that_never_started_can_be_resumed(recommender, prepared_folder, output):
    counts = batch_recommend(*recommender, prepared_folder, output, resume=True)
    assert counts["users"] == len(pq.read_table(output)) == 120


def test_data_that_is_not_there_is_an_error(recommender, output, tmp_path):
    with pytest.raises(
        FileNotFoundError, match="nothing' doesn't exist; check the path, or make a prepared dataset with"
    ):
        batch_recommend(*recommender, tmp_path / "nothing", output)


def test_data_that_is_damaged_is_an_error(recommender, prepared_folder, output, tmp_path):
    shutil.copytree(prepared_folder, tmp_path / "data")
    test = tmp_path / "data/sequences/test.parquet"
    test.write_bytes(test.read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"test.parquet is damaged .* copy the dataset again, or prepare it again"):
        batch_recommend(*recommender, tmp_path / "data", output)
    test.unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks sequences/test.parquet; copy the dataset again"):
        batch_recommend(*recommender, tmp_path / "data", output)


def test_the_same_model_elsewhere_is_the_same_run(folder, tokenizer, model, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    names = ("config", "weights", "items")
    reading = SimpleNamespace(fingerprint="", options=RecommendOptions(), items={})
    manifests = []
    for name in (folder, tmp_path / "copy"):
        loaded = type(model).from_pretrained(name), type(tokenizer).from_pretrained(name)
        manifest = module._manifest(*loaded, reading)
        manifests.append([manifest[key] for key in names])
    assert manifests[0] == manifests[1]


# ---- Of anyone


def of_users(**users: list[str]) -> UserHistories:
    """Users in memory, as a table of histories gives them."""
    table = pa.table({"user_id": list(users), "history": pa.array(list(users.values()), pa.list_(pa.string()))})
    return UserHistories("the users", lambda: iter([table.slice(0, 2), table.slice(2)]))


SEVERAL = {"ann": ["i1", "i2", "i3"], "bob": [], "cy": ["i9"], "di": ["i4", "i5"], "eve": []}
COUNTS = {"i7": 5, "i2": 4, "i9": 3}  # of training


@pytest.fixture
def counted(model, tokenizer):
    counts = torch.zeros(40, dtype=torch.long)
    counts[[index - 1 for index in tokenizer.index_of(list(COUNTS))]] = torch.tensor(list(COUNTS.values()))
    model.catalogue.set_item_counts(counts)
    return model, tokenizer


def alone(model, tokenizer, history: list[str], **constraints: list[str]) -> list[str]:
    """Returns the model's recommendations for one user."""
    indices = {name: torch.tensor(tokenizer.index_of(ids)) for name, ids in constraints.items()}
    if "exclude" in indices:
        indices["exclude"] = indices["exclude"].unsqueeze(0)
    found, _ = model.recommend(**tokenizer([history], return_tensors="pt"), top_k=4, num_beams=20, **indices)
    return tokenizer.ids_of(found[0])


def test_users_without_usable_history_get_popular_items_marked_as_such(counted, output):
    counts = batch_recommend(*counted, of_users(**SEVERAL), output, RecommendOptions(top_k=4, shard_size=2))
    assert counts == {"users": 5, "empty": 0, "popular": 2}
    table = pq.read_table(output)
    assert table["user_id"].to_pylist() == list(SEVERAL)
    assert table["popular"].to_pylist() == [False, True, False, False, True]
    for row, history in zip(table.to_pylist(), SEVERAL.values()):
        assert row["items"] == (alone(*counted, history) if history else list(COUNTS))
    shares = np.log([count / 12 for count in COUNTS.values()])
    np.testing.assert_allclose(table["scores"][1].as_py(), shares, rtol=1e-6)


def test_users_without_usable_history_get_empty_lists_where_that_is_asked(model, tokenizer, output):
    users = of_users(ann=["i1"], bob=["x"])
    options = RecommendOptions(on_empty="empty", unknown="skip")
    assert batch_recommend(model, tokenizer, users, output, options) == {"users": 2, "empty": 1}
    assert pq.read_table(output).column_names == ["user_id", "items", "scores"]


@pytest.mark.parametrize(
    ("options", "users", "message"),
    [
        (
            {"on_empty": "error"},
            {"ann": ["i1"], "bob": []},
            "user 'bob' of the users has no item that the model knows",
        ),
        ({}, {"ann": ["i1"], "bob": []}, "user 'bob' .* `on_empty` is 'popular', but this model holds no counts"),
        ({}, {"ann": ["x"]}, "item 'x' is not in the model's catalogue of 40 items; .* or pass --unknown skip"),
        ({}, {}, "the users holds no user; check the path"),
    ],
)
def test_what_is_wrong_with_a_user_is_said_before_anything_is_made(
    model, tokenizer, output, options, users, message, monkeypatch
):
    monkeypatch.setattr(module, "recommend_rows", lambda *_: pytest.fail("too late"))
    with pytest.raises(ValueError, match=message):
        batch_recommend(model, tokenizer, of_users(**users), output, RecommendOptions(**options))
    assert not list(output.parent.iterdir())


def test_a_user_of_several_rows_is_an_error(model, tokenizer, output):
    table = pa.table({"user_id": ["a", "b", "a"], "history": [["i1"], ["i2"], ["i3"]]})
    users = UserHistories("users.csv", lambda: iter([table]))
    with pytest.raises(ValueError, match=r"user 'a' has several rows in users.csv; write one row per user"):
        batch_recommend(model, tokenizer, users, output)


# items that each user must not get, or must choose from; `bob` and `eve` have no history
EXCLUDED = {"ann": ["i4", "i11", "unknown"], "bob": ["i7"], "cy": ["i5", "i6", "i7"], "nobody": ["i1"]}
ALLOWED = {"ann": ["i1", "i11", "i12", "i13", "i14"], "cy": ["i1", "i2"], "di": ["unknown"], "eve": ["i9", "i2"]}


def file_of(path, lists: dict[str, list[str]]) -> str:
    path.write_text("".join(json.dumps({"user_id": user, "items": ids}) + "\n" for user, ids in lists.items()))
    return str(path)


@pytest.mark.parametrize("batch_size", [1, 256])
@pytest.mark.parametrize("shard_size", [2, 5])
@pytest.mark.parametrize("wanted", [("exclude",), ("allowed",), ("exclude", "allowed")])
def test_each_user_gets_what_they_get_alone_under_their_own_constraints(
    counted, output, wanted, shard_size, batch_size, monkeypatch
):
    monkeypatch.setattr(row_constraints, "CELLS", 8)  # so that a batch is cut
    lists = {name: {"exclude": EXCLUDED, "allowed": ALLOWED}[name] for name in wanted}
    files = {name: file_of(output.with_name(f"{name}.jsonl"), of_name) for name, of_name in lists.items()}
    options = RecommendOptions(top_k=4, shard_size=shard_size, batch_size=batch_size, **files)
    batch_recommend(*counted, of_users(**SEVERAL), output, options)
    for row in pq.read_table(output).to_pylist():
        own = {name: [i for i in of_name.get(row["user_id"], []) if i != "unknown"] for name, of_name in lists.items()}
        popular = [
            item for item in COUNTS if item in own.get("allowed", COUNTS) and item not in own.get("exclude", [])
        ]
        if not SEVERAL[row["user_id"]]:
            assert row["items"] == popular
        elif own.get("allowed") == []:
            assert row["items"] == []
        else:
            expected = alone(*counted, SEVERAL[row["user_id"]], **{name: ids for name, ids in own.items() if ids})
            assert row["items"] == [item for item in expected if item]
        assert row["popular"] == (not SEVERAL[row["user_id"]] and bool(popular))


def test_constraints_for_all_act_on_everyone(counted, output):
    (output.with_name("exclude.txt")).write_text("i7\ni1\nunknown\n")
    (output.with_name("allowed.csv")).write_text("item_id\ni1\ni2\ni3\ni4\n")
    files = {"exclude": str(output.with_name("exclude.txt")), "allowed": str(output.with_name("allowed.csv"))}
    batch_recommend(*counted, of_users(**SEVERAL), output, RecommendOptions(top_k=4, **files))
    lists = pq.read_table(output)["items"].to_pylist()
    assert [set(items) for items in lists] == [
        {"i2", "i3", "i4"},
        {"i2"},
        {"i2", "i3", "i4"},
        {"i2", "i3", "i4"},
        {"i2"},
    ]


def test_another_file_of_items_is_another_run(counted, output):
    path = output.with_name("exclude.jsonl")
    options = RecommendOptions(exclude=file_of(path, EXCLUDED))
    batch_recommend(*counted, of_users(**SEVERAL), output, options)
    batch_recommend(*counted, of_users(**SEVERAL), output, options, resume=True)
    file_of(path, {"ann": ["i4"]})
    with pytest.raises(
        ValueError, match=r"belongs to another run: its `exclude` is '[0-9a-f]{16}', but this run's is"
    ):
        batch_recommend(*counted, of_users(**SEVERAL), output, options, resume=True)


def test_rows_of_a_split_can_be_constrained_too(prepared, prepared_folder, recommender, output):
    user = prepared.test.user_ids[60]
    path = output.with_name("allowed.jsonl")
    options = RecommendOptions(allowed=file_of(path, {user: prepared.item_ids[:2]}), **SIZES)
    assert batch_recommend(*recommender, prepared_folder, output, options) == {"users": 120, "empty": 119}
    assert set(pq.read_table(output)["items"][60].as_py()) == set(prepared.item_ids[:2])
