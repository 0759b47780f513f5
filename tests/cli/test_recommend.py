"""`etegrec recommend` for a whole dataset: in one process and in several, interrupted, and on Ray."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from calling import call, failure
from tiny_models import make_model, random_codes

from etegrec_hf import ETEGRecTokenizer, SequentialRecommendationPipeline, recommend_rows
from etegrec_hf.cli.recommend import print_items
from etegrec_hf.evaluation import batch_recommend as module
from etegrec_hf.hub.model_folder import load_recommender, save_model_folder
from etegrec_hf.hub.training_record import TrainingRecord

EXAMPLES = Path(__file__).parents[2] / "examples"
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
COMMAND = [sys.executable, "-m", "etegrec_hf"]
LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(EXAMPLES / "accelerate/cpu.yaml")]


@pytest.fixture(scope="module")
def model_folder(prepared, tmp_path_factory) -> str:
    codes = random_codes(prepared.n_items, 3, 8)
    tokenizer = ETEGRecTokenizer.from_item_codes(prepared.item_ids, codes, 8)
    folder = tmp_path_factory.mktemp("recommender") / "model"
    save_model_folder(folder, make_model(codes, 8), tokenizer, TrainingRecord())
    return str(folder)


@pytest.fixture
def wanted(model_folder, prepared_folder) -> list[str]:
    return ["recommend", "--model", model_folder, "--data", prepared_folder, "--shard-size", "7"]


def finish(command: list[str]) -> str:
    """Runs a command to its end; returns what it prints."""
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_command_tells_what_it_made(wanted, prepared, tmp_path, capsys):
    call(*wanted, "--output", tmp_path / "new/out.parquet", "--top-k", 3)
    out = tmp_path / "new/out.parquet"
    printed = capsys.readouterr()
    assert f"120 users in {out}; 0 of them have an empty list" in printed.out
    assert re.search(r"^recommending 120/120, [\d,]+ users/s$", printed.err, re.MULTILINE)
    table = pq.read_table(out)
    assert table["user_id"].to_pylist() == prepared.test.user_ids
    assert {len(items) for items in table["items"].to_pylist()} == {3}


def test_bars_of_transformers_are_not_among_the_lines_and_one_user_is_one(model_folder, prepared, tmp_path, capsys):
    """The weights are read, which shows a bar in Python; as a switch of the whole process, it is as it was after."""
    items = prepared.item_ids[:3]
    (tmp_path / "users.jsonl").write_text(json.dumps({"user_id": "u", "history": items}) + "\n")
    call("recommend", model_folder, "--histories", tmp_path / "users.jsonl", "--output", tmp_path / "out.csv")
    printed = capsys.readouterr()
    assert f"1 user in {tmp_path / 'out.csv'}; 0 of them have an empty list" in printed.out
    assert "Loading weights" not in printed.err
    load_recommender(model_folder)
    assert "Loading weights" in capsys.readouterr().err


def test_the_ending_says_what_is_written(wanted, prepared, tmp_path, capsys):
    outputs = {ending: tmp_path / f"out.{ending}" for ending in ("parquet", "csv", "jsonl")}
    for output in outputs.values():
        call(*wanted, "--output", output, "--top-k", 3, "--exclude-history", "true")
        assert sorted(path.name for path in tmp_path.glob("*.shards")) == []
    table = pq.read_table(outputs["parquet"]).to_pylist()
    assert [json.loads(line) for line in outputs["jsonl"].read_text().splitlines()] == table
    with outputs["csv"].open(newline="") as file:
        rows = [
            {**row, **{name: json.loads(row[name]) for name in ("items", "scores")}} for row in csv.DictReader(file)
        ]
    assert rows == table
    assert "only a .parquet file tells which run wrote it" in failure(
        capsys, *wanted, "--output", outputs["csv"], "--resume", "true"
    )


def test_a_table_and_a_log_of_the_same_users_make_the_same_file(model_folder, tmp_path, capsys):
    users = {"u1": ["item00003", "item00001"], "u2": ["item00007"], "u3": ["item00002", "item00002"]}
    lines = [{"user_id": user, "history": history} for user, history in users.items()]
    (tmp_path / "table.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = [f"{user};{item};{time}" for user, items in users.items() for time, item in enumerate(items)]
    (tmp_path / "log.csv").write_text("\n".join(["who;sku;date", *rows[::-1]]) + "\n")
    named = ["--user-column", "who"]
    for name, options in {"table.jsonl": [], "log.csv": named}.items():
        output = tmp_path / f"{name}.parquet"
        call("recommend", model_folder, "--histories", tmp_path / name, *options, "--output", output, "--top-k", 3)
        told = capsys.readouterr().out
        assert f"3 users in {output}; 0 of them have an empty list; 0 have popular items" in told
    files = (tmp_path / f"{name}.parquet" for name in ("table.jsonl", "log.csv"))
    table, log = (pq.read_table(file).sort_by("user_id") for file in files)
    assert table.equals(log)
    assert table["user_id"].to_pylist() == list(users)


def test_items_of_a_file_are_left_out_or_chosen_from(model_folder, tmp_path):
    lines = [{"user_id": user, "history": ["item00003"]} for user in ("u1", "u2")]
    (tmp_path / "users.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "allowed.txt").write_text("item00001\nitem00002\nitem00003\nelsewhere\n")
    (tmp_path / "exclude.csv").write_text("user_id,item_id\nu2,item00002\n")
    wanted = ["recommend", model_folder, "--histories", tmp_path / "users.jsonl", "--output", tmp_path / "out.jsonl"]
    call(*wanted, "--allowed", tmp_path / "allowed.txt", "--exclude", tmp_path / "exclude.csv")
    lists = [set(json.loads(line)["items"]) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert lists == [{"item00001", "item00002", "item00003"}, {"item00001", "item00003"}]


ARTISTS = ["Tyler, the Creator", "Earth, Wind & Fire", " Beyoncé ", "Björk", *(f"artist {row}" for row in range(8))]


@pytest.fixture(scope="module")
def artists(tmp_path_factory) -> str:
    """A model of items whose ids hold commas and blanks."""
    codes = random_codes(len(ARTISTS), 3, 8)
    folder = tmp_path_factory.mktemp("artists") / "model"
    tokenizer = ETEGRecTokenizer.from_item_codes(ARTISTS, codes, 8)
    save_model_folder(folder, make_model(codes, 8), tokenizer, TrainingRecord())
    return str(folder)


@pytest.mark.parametrize(
    ("typed", "history"),
    [
        ("Earth, Wind & Fire", ARTISTS[1:2]),
        (" Beyoncé ", ARTISTS[2:3]),
        ("Björk, artist 3", ["Björk", "artist 3"]),
        ('["Tyler, the Creator", "Earth, Wind & Fire", " Beyoncé "]', ARTISTS[:3]),
    ],
)
def test_ids_with_commas_and_blanks(artists, typed, history, monkeypatch, capsys):
    read = []

    def noted(self, histories, **kwargs):
        read.extend(histories)
        return tokenize(self, histories, **kwargs)

    tokenize = ETEGRecTokenizer.__call__
    monkeypatch.setattr(ETEGRecTokenizer, "__call__", noted)
    call("recommend", "--model", artists, "--history", typed)
    assert read == [history]


def test_the_message_says_how_ids_with_commas_are_written(artists, capsys):
    wanted = ["recommend", "--model", artists, "--history"]
    message = failure(capsys, *wanted, "Tyler, the Creator, Björk")
    assert "item 'Tyler' is not in the catalogue of 12 items; " in message
    assert 'as a JSON list: ["Earth, Wind & Fire"]' in message
    assert "JSON" not in failure(capsys, *wanted, "nobody")
    assert "did you mean 'Björk'? Otherwise, leave it out" in failure(capsys, *wanted, "Bjørk")
    assert "[1] holds 1, but ids are text" in failure(capsys, *wanted, "[1]")


REMEDY = "give `history` alone for a list on the screen, or `output` with `histories` or `data` for a file of lists"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("", f"none of `history`, `histories` and `data` is given; {REMEDY}"),
        ("--histories {data} --data {data}", f"`histories` and `data` given; {REMEDY}"),
        ("--history a --exclude {data}", "`exclude` is '{data}', but has no effect on `history`; leave it out"),
        ("--data {data} --output {folder}/x.csv --user-column u", "`user_column` is 'u', but has no effect on `data`"),
        ("--history a --split train", "`split` is 'train', but has no effect on `history`; leave it out"),
        ("--history a --resume true", "`resume` is True, but has no effect on `history`; leave it out"),
        ("--history a --time-column t", "`time_column` is 't', but has no effect on `history`; leave it out"),
        (
            "--histories {data} --output {folder}/x.csv --include-target false",
            "`include_target` is False, but has no effect on `histories`; leave it out",
        ),
        ("--data {data} --output {folder}/x.csv --on-empty no", "`on_empty` is 'no'; choose one of popular, em"),
        ("--history a --data {data}", f"`history` and `data` given; {REMEDY}"),
        ("--data {data}", f"`data` given; {REMEDY}"),
        ("--history a --output {folder}/out.parquet", f"`history` and `output` given; {REMEDY}"),
        ("--data {data} --output {folder}", "is a folder; name a file in it"),
        ("--data {data} --output {folder}/x.txt", "/x.txt'; name a file that ends in .parquet, .csv or .jsonl"),
        (
            "--data {data} --output /dev/null/x.csv",
            "the folder of `output` '/dev/null/x.csv' can't be made (File",
        ),
        ("--data {data} --output {folder}/x", "/x'; name a file that ends in .parquet, .csv or .jsonl"),
        (
            "--history item00000 --transition-weight 0.5",
            "`transition_weight` is 0.5, but the model keeps no transitions",
        ),
        ("--history item00000 --rerank-weight -1", "`rerank_weight` is -1.0; give a weight"),
    ],
)
def test_wrong_calls_are_an_error(model_folder, prepared_folder, tmp_path, capsys, options, message):
    options = [part.format(data=prepared_folder, folder=tmp_path) for part in options.split()]
    message = message.replace("{data}", prepared_folder)
    assert message in failure(capsys, "recommend", "--model", model_folder, *options)


def test_errors_reach_the_command_line(wanted, tmp_path, capsys):
    out = tmp_path / "out.parquet"
    wanted = [*wanted, "--output", out]
    assert "`split` is 'dev'; choose one of train, validation, test" in failure(capsys, *wanted, "--split", "dev")
    call(*wanted)
    assert "already exists; pass --resume true to continue" in failure(capsys, *wanted)
    lists = [*wanted[:-1], tmp_path / "out.csv"]
    call(*lists)
    assert "out.csv' already exists; remove it, or name another" in failure(capsys, *lists), "it can't be resumed"
    message = failure(capsys, *wanted, "--resume", "true", "--include-target", "false")
    assert "belongs to another run: its `include_target` is True, but this run's is False" in message
    call(*wanted, "--resume", "true")


@pytest.mark.slow
def test_two_processes_make_the_file_of_one(wanted, tmp_path):
    call(*wanted, "--output", tmp_path / "one.parquet")
    told = finish([*LAUNCH, "--module", "etegrec_hf", *wanted, "--output", str(tmp_path / "two.parquet")])
    assert told.count("120 users in") == 1
    assert (tmp_path / "two.parquet").read_bytes() == (tmp_path / "one.parquet").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.parquet", "two.parquet"]


@pytest.mark.slow
def test_a_killed_run_goes_on(wanted, tmp_path, monkeypatch):
    wanted = [*wanted, "--num-beams", "60", "--shard-size", "1"]
    call(*wanted, "--output", tmp_path / "whole.parquet")
    output = tmp_path / "out.parquet"
    run = subprocess.Popen([*COMMAND, *wanted, "--output", str(output)], env=ENVIRONMENT, stderr=subprocess.DEVNULL)
    shards = output.with_name("out.parquet.shards")
    while len(list(shards.glob("shard-*"))) < 20:
        assert run.poll() is None, "it ended before it could be killed"
        time.sleep(0.001)
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert not output.exists()
    finished = len(list(shards.glob("shard-*")))
    assert 20 <= finished < 120
    again = []

    def noted(*arguments):
        again.append(arguments)
        return recommend_rows(*arguments)

    monkeypatch.setattr(module, "recommend_rows", noted)
    call(*wanted, "--output", output, "--resume", "true")
    assert len(again) == 120 - finished
    assert output.read_bytes() == (tmp_path / "whole.parquet").read_bytes()


ON_RAY = """
import ray, runpy, sys
ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False, object_store_memory=100_000_000)
for actors in ("3", "2"):
    try:
        sys.argv = [*sys.argv[1:], "--actors", actors]
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as error:
        print(error)
        sys.argv.insert(0, "")

import json
from ray import serve

class Given:  # what a request is to the example; an HTTP proxy would be one more process, and Ray's part
    def __init__(self, wanted):
        self.wanted = wanted

    async def json(self):
        return self.wanted

example = runpy.run_path(SERVE)
serve.start(proxy_location="Disabled")
handle = serve.run(example["application"](example["Arguments"](MODEL, replicas=2)))
answers = [answer.result() for answer in [handle.remote(Given(wanted)) for wanted in WANTED]]
print("SERVED", json.dumps([[answer.status_code, json.loads(answer.body)] for answer in answers]))
serve.shutdown()
"""  # both examples in one session, as starting one takes long


@pytest.mark.slow
def test_the_examples_on_ray_make_the_same_file_and_the_same_lists(
    wanted, model_folder, prepared_folder, tmp_path, monkeypatch
):
    for name, value in {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}.items():
        monkeypatch.setitem(ENVIRONMENT, name, value)
    arguments = ["--model", model_folder, "--data", prepared_folder, "--output", str(tmp_path / "ray.parquet")]
    script = str(EXAMPLES / "batch_recommend_ray.py")
    history = {"history": ["item00003", "item00001"]}
    wanted_lists = [history | {"top_k": 3}, {"history": ["unknown"]}, history | {"exclude": ["item00002"]}] * 3
    wanted_lists += [{"history": "item00003"}, history | {"top_k": 21}]
    given = {"SERVE": str(EXAMPLES / "serve_ray.py"), "MODEL": model_folder, "WANTED": wanted_lists}
    code = "".join(f"{name} = {value!r}\n" for name, value in given.items()) + ON_RAY
    told = finish([sys.executable, "-c", code, script, *arguments, "--shard_size", "11"])
    assert told.count("`actors` is 3, but the cluster has 3 CPU cores; leave one core for reading") == 1
    call(*wanted, "--output", tmp_path / "command.parquet")
    theirs, ours = (pq.read_table(tmp_path / f"{name}.parquet") for name in ("ray", "command"))
    assert theirs.schema.equals(ours.schema)
    assert theirs.select(["user_id", "items"]).equals(ours.select(["user_id", "items"]))
    scores = [table["scores"].combine_chunks().flatten().to_numpy() for table in (theirs, ours)]
    np.testing.assert_allclose(*scores, atol=1e-5, rtol=0)

    served = json.loads(re.search(r"^SERVED (.*)$", told, re.MULTILINE)[1])
    model, tokenizer = load_recommender(model_folder)
    recommend = SequentialRecommendationPipeline(model=model, tokenizer=tokenizer)
    for (status, answer), wanted_list in zip(served[:9], wanted_lists):
        assert status == 200
        history = {name: ids for name, ids in wanted_list.items() if name != "top_k"}
        expected = recommend(history, top_k=20, unknown="skip", on_empty="empty")[: wanted_list.get("top_k", 10)]
        assert [item["item_id"] for item in answer] == [item["item_id"] for item in expected]
    assert served[9:] == [
        [400, {"error": "`history` is 'item00003'; give a list of item ids."}],
        [400, {"error": "`top_k` is 21; give a number from 1 to 20."}],
    ]


def test_long_ids_are_printed_whole(capsys):
    """A pipe has 80 columns, and half an id is of no use."""
    ids = [f"https://shop.example/items/{'x' * 60}/{number}" for number in range(2)]
    print_items([{"rank": 1, "item_id": item_id, "title": "T" * 30, "score": -1.0} for item_id in ids])
    shown = capsys.readouterr().out
    assert "…" not in shown
    column = "".join(line.split("│")[2].strip() for line in shown.splitlines() if line.count("│") == 5)
    assert column == "".join(ids)
