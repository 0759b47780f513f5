import json
import re
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from calling import call, failure
from tiny_models import make_model, random_codes

from etegrec_hf import ETEGRecTokenizer
from etegrec_hf.evaluation.comparison import compare, paired_bootstrap
from etegrec_hf.hub.model_folder import load_recommender, save_model_folder
from etegrec_hf.hub.training_record import TrainingRecord


@pytest.fixture(scope="module")
def results(prepared, prepared_folder, tmp_path_factory):
    """Results of two untrained models of two seeds each, with ranks."""
    folder = tmp_path_factory.mktemp("results")
    for system in ("mine", "theirs"):
        for seed in (0, 1):
            codes = random_codes(prepared.n_items, 3, 8, seed=seed)
            model = make_model(codes, 8, seed=seed + 10 * (system == "mine"))
            tokenizer = ETEGRecTokenizer.from_item_codes(prepared.item_ids, codes, 8)
            name = f"{system}{seed}"
            record = TrainingRecord(stages=[{"stage": "finetuning", "seed": seed}])
            save_model_folder(folder / name, model, tokenizer, record)
            call("evaluate", "--model", folder / name, "--data", prepared_folder, "--num-beams", 10, "--output",
                 folder / f"{name}.json", "--ranks", folder / "ranks" / f"{name}.parquet")  # fmt: skip
    return folder


def named(folder, *systems: str) -> list[str]:
    return [f"{system}={folder / f'{system}{seed}.json'}" for system in systems for seed in (0, 1)]


def test_evaluate_keeps_ranks_and_how_it_measured(results, prepared):
    result = json.loads((results / "mine0.json").read_text())
    ranks = pq.read_table(results / result["ranks"])
    assert ranks["user_id"].to_pylist() == list(prepared.test.user_ids)
    rank = ranks["rank"].to_numpy()
    assert np.mean((rank > 0) & (rank <= 5)) == pytest.approx(result["test"]["recall@5"])
    assert result["seeds"] == {"finetuning": 0}
    assert result["rerank_weight"] == 0.0
    assert set(result["protocol"]["data"]) == {"items", "train", "test"}


def test_a_table_of_means_deviations_and_paired_differences(results, capsys):
    call("compare", "--results", *named(results, "mine", "theirs"), "--output", results / "table.json")
    shown = capsys.readouterr().out
    table = json.loads((results / "table.json").read_text())
    runs = [json.loads((results / f"mine{seed}.json").read_text())["test"]["ndcg@10"] for seed in (0, 1)]
    assert table["systems"]["mine"]["mean"]["ndcg@10"] == pytest.approx(np.mean(runs))
    assert table["systems"]["mine"]["std"]["ndcg@10"] == pytest.approx(np.std(runs, ddof=1))
    assert table["systems"]["theirs"]["seeds"] == [{"finetuning": 0}, {"finetuning": 1}]
    ranks = {
        system: [pq.read_table(results / f"ranks/{system}{seed}.parquet")["rank"].to_numpy() for seed in (0, 1)]
        for system in ("mine", "theirs")
    }
    expected = paired_bootstrap(ranks["theirs"], ranks["mine"])
    assert table["differences"]["from"] == "mine"
    found = table["differences"]["systems"]["theirs"]
    assert found["ndcg@10"]["difference"] == pytest.approx(expected["ndcg@10"]["difference"])
    assert "num beams: 10" in shown.replace("\n", " ")
    assert "theirs less mine, ndcg@10" in shown
    assert table["protocol"]["data"]["test"] in shown


def test_results_without_ranks_have_no_differences(results, capsys):
    without = json.loads((results / "theirs0.json").read_text())
    del without["ranks"]
    (results / "without.json").write_text(json.dumps(without))
    ours, theirs = f"mine={results / 'mine0.json'}", f"theirs={results / 'theirs0.json'}"
    call("compare", "--results", ours, theirs, f"third={results / 'without.json'}")
    shown = capsys.readouterr().out
    assert "theirs less mine, ndcg@10" in shown
    assert "third less mine" not in shown
    assert "no differences of third from mine: they need the ranks that `etegrec evaluate --output" in shown


def test_results_without_ranks_leave_the_intervals_of_others(results, tmp_path):
    """Intervals are of users. Here each user has several targets, so without users intervals would be narrower."""
    shutil.copytree(results, tmp_path, dirs_exist_ok=True)
    for name in ("mine0", "theirs0"):
        path = tmp_path / f"ranks/{name}.parquet"
        ranks = pq.read_table(path)
        few = pa.array([f"u{row % 5}" for row in range(len(ranks))])
        pq.write_table(ranks.set_column(ranks.schema.get_field_index("user_id"), "user_id", few), path)
    without = json.loads((tmp_path / "theirs0.json").read_text())
    del without["ranks"]
    (tmp_path / "without.json").write_text(json.dumps(without))
    mine, theirs, third = ([str(tmp_path / f"{name}.json")] for name in ("mine0", "theirs0", "without"))
    alone = compare({"mine": mine, "theirs": theirs})["differences"]["systems"]
    assert compare({"mine": mine, "theirs": theirs, "third": third})["differences"]["systems"] == alone


def test_long_names_leave_numbers_whole(results, capsys):
    """On 80 columns, as in a pipe."""
    name = "a variant whose name is as long as a sentence of some words"
    call("compare", "--results", *(f"{name}={results / f'mine{seed}.json'}" for seed in (0, 1)))
    shown = capsys.readouterr().out
    mean = compare({"a": [str(results / f"mine{seed}.json") for seed in (0, 1)]})["systems"]["a"]["mean"]
    assert all(f"{mean[metric]:.4f}" in shown for metric in ("recall@5", "recall@10", "ndcg@5", "ndcg@10"))
    column = " ".join(line.split("│")[1].strip() for line in shown.splitlines() if line.startswith("│"))
    assert name in " ".join(column.split())
    assert "…" not in shown


def test_one_run_has_no_deviation(results, capsys):
    both = [f"two={results / f'mine{seed}.json'}" for seed in (0, 1)]
    call("compare", "--results", f"one={results / 'mine0.json'}", *both, "--output", results / "one.json")
    shown = capsys.readouterr().out.splitlines()
    assert [("±" in line) for name in ("one", "two") for line in shown if line.startswith(f"│ {name} ")] == [
        False,
        True,
    ]
    systems = json.loads((results / "one.json").read_text())["systems"]
    assert set(systems["one"]["std"].values()) == {None}
    assert systems["two"]["std"]["ndcg@10"] >= 0


def test_the_protocol_names_the_precision_of_the_weights(results, prepared_folder, tmp_path):
    model, tokenizer = load_recommender(str(results / "mine0"))
    save_model_folder(tmp_path / "half", model.bfloat16(), tokenizer, TrainingRecord())
    for name, folder in (("float32", results / "mine0"), ("bfloat16", tmp_path / "half")):
        call(
            "evaluate", "--model", folder, "--data", prepared_folder, "--num-beams", 2, "--output", tmp_path / "r.json"
        )
        assert json.loads((tmp_path / "r.json").read_text())["protocol"]["dtype"] == name


def test_a_table_of_two_protocols_is_refused(results, prepared_folder, capsys):
    call("evaluate", "--model", results / "mine0", "--data", prepared_folder, "--num-beams", 10, "--output",
         results / "masked.json", "--exclude-seen", "true")  # fmt: skip
    capsys.readouterr()
    message = failure(capsys, "compare", "--results", *named(results, "mine"), f"masked={results / 'masked.json'}")
    assert "were measured differently, with `seen_items` 'kept' and 'left out'" in message


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("mine", "write SYSTEM=FILE"),
        ("=x.json", "write SYSTEM=FILE"),
        ("mine=gone.json", "'gone.json' isn't a file; name a file that `etegrec evaluate --output` wrote"),
    ],
)
def test_entries_that_name_no_result(entry, message, capsys):
    assert message in failure(capsys, "compare", "--results", entry)


@pytest.mark.parametrize(("content", "message"), [("[", "isn't JSON"), ("{}", "isn't a result of `etegrec evaluate`")])
def test_files_that_are_no_results(capsys, tmp_path, content, message):
    (tmp_path / "other.json").write_text(content)
    assert message in failure(capsys, "compare", "--results", f"a={tmp_path / 'other.json'}")


@pytest.mark.parametrize("other", ["mine0.json", "../{}/mine0.json"])
def test_a_file_that_is_named_twice(results, capsys, other):
    twice = f"{results}/{other.format(results.name)}"
    message = failure(capsys, "compare", "--results", f"mine={results / 'mine0.json'}", f"mine={twice}")
    assert f"`results` names '{twice}' twice for 'mine'; name each run once" in message


def test_a_result_that_was_moved_without_its_users(results, capsys, tmp_path):
    moved = tmp_path / "moved.json"
    moved.write_text((results / "mine0.json").read_text())
    assert "move both files together" in failure(capsys, "compare", "--results", f"a={moved}")


@pytest.mark.parametrize("content", [b"", b"PAR1 and no more"])
def test_ranks_that_are_damaged(results, capsys, tmp_path, content):
    result = json.loads((results / "mine0.json").read_text())
    (tmp_path / "r.json").write_text(json.dumps(result | {"ranks": "r.parquet"}))
    (tmp_path / "r.parquet").write_bytes(content)
    message = failure(capsys, "compare", "--results", f"a={tmp_path / 'r.json'}")
    assert f"'{tmp_path / 'r.parquet'}' holds no ranks" in message
    assert "run `etegrec evaluate --ranks` again" in message


def test_ranks_of_another_run(results, capsys, tmp_path):
    for name in ("mine0", "theirs0"):
        result = json.loads((results / f"{name}.json").read_text())
        result["test"] |= {"recall@10": 0.5} if name == "mine0" else {}
        (tmp_path / f"{name}.json").write_text(json.dumps(result | {"ranks": "r.parquet"}))
    shutil.copy(results / "ranks/theirs0.parquet", tmp_path / "r.parquet")
    message = failure(capsys, "compare", "--results", f"a={tmp_path / 'mine0.json'}", f"b={tmp_path / 'theirs0.json'}")
    assert re.search(r"mine0.json has a \w+@\d+ of 0.\d+, but its ranks in .* one of 0.\d+: ", message)
    assert "another run has written them; evaluate again, with a file of ranks for each run" in message


def test_ranks_of_another_run_with_the_same_longest_recall(results, capsys, tmp_path):
    """As of the same beam in another order, where all items are in the list."""
    ranks = pq.read_table(results / "ranks/mine0.parquet")
    column = ranks["rank"].to_numpy()
    other = np.where(column > 0, column.max() + 1 - column, 0)
    pq.write_table(pa.table({"user_id": ranks["user_id"], "rank": other}), tmp_path / "r.parquet")
    result = json.loads((results / "mine0.json").read_text())
    (tmp_path / "mine0.json").write_text(json.dumps(result | {"ranks": "r.parquet"}))
    message = failure(capsys, "compare", "--results", f"a={tmp_path / 'mine0.json'}")
    assert "another run has written them" in message


def test_baselines_of_all_files_are_shown(results, tmp_path):
    shutil.copytree(results, tmp_path, dirs_exist_ok=True)
    more = json.loads((tmp_path / "theirs0.json").read_text())
    more["baselines"]["sasrec"] = more["baselines"]["popularity"]
    (tmp_path / "theirs0.json").write_text(json.dumps(more))
    mine, theirs = ([str(tmp_path / f"{name}.json")] for name in ("mine0", "theirs0"))
    for runs in ({"a": mine, "b": theirs}, {"b": theirs, "a": mine}):
        assert set(compare(runs)["baselines"]) == {"popularity", "transitions", "sasrec"}


def test_a_result_is_not_overwritten(results, capsys):
    before = (results / "mine0.json").read_text()
    given = ["--results", f"a={results / 'mine0.json'}", "--output", f"{results}/../{results.name}/mine0.json"]
    assert "is one of the `results`; name a new file" in failure(capsys, "compare", *given)
    assert (results / "mine0.json").read_text() == before
