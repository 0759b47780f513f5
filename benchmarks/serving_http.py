"""Compares the server of `etegrec serve` with a plain server and with the model alone, and tests it under load.

    python benchmarks/serving_http.py [--seconds 20] [--requests 2000] [--threads 2]

A model of random weights and the paper's size (6 + 6 layers of width 128) with 25,000 items; beam 20, top 10,
histories of 5 to 50 items. Servers and clients are separate processes. A client sends its next request once the last
one is answered. Speeds are measured in turns and compared as ratios. Afterwards `--requests` requests of all kinds,
right and wrong ones, are sent, with a reload halfway and SIGTERM at the end. Each answer to a valid request must be
that of the pipeline, and no answer may have status 500.
"""

import argparse
import asyncio
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import psutil
import torch
from http_clients import N_ITEMS, TOP_K, Connection, client_process, load, random_history

from etegrec_hf import ETEGRecConfig, ETEGRecForConditionalGeneration, ETEGRecTokenizer
from etegrec_hf.hub.model_folder import load_recommender, save_model_folder
from etegrec_hf.hub.training_record import TrainingRecord
from etegrec_hf.models.pipeline_etegrec import SequentialRecommendationPipeline

BEAMS = 20
PLAIN = """
import sys
import uvicorn
from fastapi import FastAPI
from etegrec_hf.hub.model_folder import load_recommender
from etegrec_hf.models.pipeline_etegrec import SequentialRecommendationPipeline

model, tokenizer = load_recommender(sys.argv[1])
pipeline = SequentialRecommendationPipeline(model=model, tokenizer=tokenizer)
app = FastAPI()

@app.post("/recommend")
def recommend(request: dict):
    return {"items": pipeline(request["history"], top_k=request["top_k"])}

uvicorn.run(app, port=int(sys.argv[2]), log_level="warning")
"""


SMALL = {"d_model": 32, "d_kv": 16, "num_heads": 2, "d_ff": 64, "num_layers": 1, "num_decoder_layers": 1}


def write_model(folder: Path, seed: int, sizes: dict[str, int]) -> None:
    """Writes a model of random weights into a folder; item ids are the same for all seeds."""
    torch.manual_seed(seed)
    sizes = sizes | {"has_item_tokenizer": False, "has_semantic_embedding": False}
    model = ETEGRecForConditionalGeneration(ETEGRecConfig(n_items=N_ITEMS, **sizes)).eval()
    numbers = torch.randint(256**4, (2 * N_ITEMS,)).unique()
    numbers = numbers[torch.randperm(len(numbers))[:N_ITEMS]]
    codes = torch.stack([numbers >> shift & 255 for shift in (24, 16, 8, 0)], dim=1)
    model.set_item_codes(codes)
    model.catalogue.set_item_counts(torch.randint(1000, (N_ITEMS,)))
    tokenizer = ETEGRecTokenizer.from_item_codes([f"item-{row}" for row in range(N_ITEMS)], codes, 256)
    save_model_folder(folder, model, tokenizer, TrainingRecord())


class Server:
    """A server in a process of its own."""

    def __init__(self, command: list[str], port: int, environment: dict[str, str]):
        self.port = port
        self.process = subprocess.Popen(command, env=os.environ | environment)

    def wait(self, path: str) -> "Server":
        async def until() -> None:
            while self.process.poll() is None:
                try:
                    connection = await Connection.to(self.port)
                    if (await connection.ask("GET", path))[0] in (200, 405):
                        return
                except OSError:
                    pass
                await asyncio.sleep(0.2)
            raise RuntimeError("the server ended")

        asyncio.run(asyncio.wait_for(until(), 600))
        return self

    def end(self) -> int:
        """Sends SIGTERM, and returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    @property
    def megabytes(self) -> float:
        return psutil.Process(self.process.pid).memory_info().rss / 1e6


def users_per_second(folder: Path, seconds: float, threads: int) -> float:
    """Returns the users per second of `model.recommend` in batches of 64."""
    torch.set_num_threads(threads)
    model, tokenizer = load_recommender(str(folder))
    generator = random.Random(0)
    batches = [
        tokenizer([random_history(generator) for _ in range(64)], padding=True, return_tensors="pt") for _ in range(8)
    ]
    done, start = 0, 0.0
    while not start or time.perf_counter() - start < seconds:
        model.recommend(**batches[done % 8], top_k=TOP_K, num_beams=BEAMS)
        done += 1
        if not start:  # the first one makes tables
            done, start = 0, time.perf_counter()
    return 64 * done / (time.perf_counter() - start)


def measure_speed(folder: Path, serve: list[str], port: int, environment: dict[str, str], options) -> None:
    rounds = []
    for seed in range(options.rounds):
        plain = Server([sys.executable, "-c", PLAIN, str(folder), str(port)], port, environment).wait("/recommend")
        slow = client_process(port, 32, options.seconds, seed)
        plain.process.kill()
        plain.process.wait()
        server = Server(serve, port, environment).wait("/ready")
        fast = client_process(port, 32, options.seconds, seed)
        most = client_process(port, 64, options.seconds, seed)
        sixteen = sorted(client_process(port, 16, options.seconds, seed))
        assert server.end() == 0
        alone = users_per_second(folder, options.seconds, options.threads)
        p50, p99 = statistics.median(sixteen), sixteen[int(0.99 * len(sixteen))]
        rates = [len(times) / options.seconds for times in (slow, fast, most)]
        print(f"plain {rates[0]:.1f}/s, 32 clients {rates[1]:.1f}/s, 64 {rates[2]:.1f}/s, model {alone:.1f}/s; "
              f"of 16 p50 {p50 * 1000:.0f} ms p99 {p99 * 1000:.0f} ms", flush=True)  # fmt: skip
        rounds.append((rates[1] / rates[0], rates[2] / alone, p99 / p50))
    against, of_model, tail = (statistics.median(row) for row in zip(*rounds))
    print("| figure | measured | goal |")
    print("| --- | --- | --- |")
    print(f"| requests per second with 32 clients, against a plain server | {against:.1f}x | 6x |")
    print(f"| of `model.recommend` in batches, with 64 clients | {of_model:.0%} | 70% |")
    print(f"| p99 over p50, with 16 clients | {tail:.1f} | at most 3 |")


# Requests of all kinds


SHELVES = [random_history(random.Random(number)) for number in range(16)]  # for `allowed`: few, so that lists batch


def random_request(generator: random.Random) -> tuple[str, bytes, dict | None, set[int]]:
    """Returns a kind, a body, the request if it is valid, and the statuses that may answer it."""
    kind = generator.choice(
        ["valid"] * 12 + ["unknown", "skip", "empty", "popular", "long", "broken", "zero", "huge", "similar", "gone"]
    )
    request: dict = {"history": random_history(generator), "top_k": generator.choice([1, 5, 10])}
    statuses = {200}
    if kind == "valid":
        request |= generator.choice(
            [{}, {}, {"exclude_history": True}, {"exclude": random_history(generator)}, {"num_beams": 30},
             {"allowed": generator.choice(SHELVES)}]
        )  # fmt: skip
    elif kind == "unknown":
        request["history"].append("gone")
        statuses = {422}
    elif kind == "skip":
        request |= {"history": [*request["history"], "gone"], "unknown": "skip"}
    elif kind == "empty":
        request |= {"history": [], "on_empty": generator.choice(["empty", "error"])}
        statuses = {200 if request["on_empty"] == "empty" else 422}
    elif kind == "popular":
        request |= {"history": [], "on_empty": "popular"}
    elif kind == "long":
        request["history"] = request["history"][:1] * 10_000
        statuses = {422}
    elif kind in ("zero", "huge"):
        request["top_k"] = 0 if kind == "zero" else 10**9
        statuses = {422}
    elif kind == "broken":
        return kind, json.dumps(request).encode()[: generator.randrange(1, 30)], None, {400}
    elif kind == "similar":
        return kind, f"/similar?item_id=item-{generator.randrange(N_ITEMS)}".encode(), None, {200}
    if generator.random() < 0.001:
        return "body of 5 MB", b" " * 5_000_000, None, {413}
    return kind, json.dumps(request).encode(), request if statuses == {200} and kind != "gone" else None, statuses


OWN = ("history", "exclude")  # what the pipeline takes per history


class Mix:
    """Sends requests of all kinds, and compares their answers with the pipeline's."""

    def __init__(self, port: int, pipelines: dict[str, SequentialRecommendationPipeline]):
        self.port, self.pipelines = port, pipelines
        self.statuses: dict[str, int] = {}
        self.answered: list[tuple[dict, dict]] = []
        self.wrong: list[str] = []
        self.identical = self.ties = 0

    async def client(self, number: int, count: int) -> None:
        generator, connection = random.Random(number), await Connection.to(self.port)
        for _ in range(count):
            kind, body, request, statuses = random_request(generator)
            if kind == "gone":  # closes the connection in the middle of its request or before the answer
                end = generator.choice([len(body) // 2, len(body)])
                head = f"POST /recommend HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
                connection.writer.write(head + body[:end])
                await asyncio.sleep(generator.random() / 100)
                connection.close()
                connection = await Connection.to(self.port)
                continue
            similar = kind == "similar"
            method, path = ("GET", body.decode()) if similar else ("POST", "/recommend")
            status, answer = await connection.ask(method, path, b"" if similar else body)
            self.statuses[f"{kind} {status}"] = self.statuses.get(f"{kind} {status}", 0) + 1
            if status == 429:
                await asyncio.sleep(0.5)
            elif status not in statuses:
                self.wrong.append(f"{kind}: {status} {answer[:200]!r}")
            elif request is not None:
                self.answered.append((request, json.loads(answer)))
            if kind == "body of 5 MB":
                connection = await Connection.to(self.port)
        connection.close()

    async def run(self, requests: int, clients: int, act) -> None:
        each = requests // clients // 2
        await asyncio.gather(*(self.client(number, each) for number in range(clients)))
        await asyncio.gather(*(self.client(1000 + number, each) for number in range(clients)), asyncio.to_thread(act))

    def compare(self) -> int:
        """Compares the answers with those of the pipeline of their revision, and returns the number of answers."""
        alike = defaultdict(list)  # by revision and options, since the pipeline takes one set of options per call
        for request, answer in self.answered:
            options = {name: value for name, value in request.items() if name not in OWN}
            alike[answer["revision"], json.dumps(options, sort_keys=True)].append((request, answer["items"]))
        for (revision, options), rows in alike.items():
            asked = [{name: request[name] for name in OWN if name in request} for request, _ in rows]
            for (request, items), wanted in zip(rows, self.pipelines[revision](asked, **json.loads(options))):
                self.identical += [item["item_id"] for item in items] == [item["item_id"] for item in wanted]
                if not same_lists(items, wanted) and not self.at_the_edge(request, items, revision):
                    self.wrong.append(f"another list for {request}: {items} instead of {wanted}")
        return len(self.answered)

    def at_the_edge(self, request: dict, items: list[dict], revision: str) -> bool:
        """Whether the pipeline gives a list with one prefix per level more or less.

        If two prefixes at the beam's edge have scores as good as equal, the other rows of a batch decide by their
        rounding which of them is kept.
        """
        own = {name: request[name] for name in OWN if name in request}
        options = {name: value for name, value in request.items() if name not in OWN}
        beams = options.pop("num_beams", BEAMS)
        near = (self.pipelines[revision](own, num_beams=beams + step, **options) for step in (1, -1))
        found = any(same_lists(items, list_) for list_ in near)
        self.ties += found
        return found


def same_lists(one: list[dict], other: list[dict], tolerance: float = 1e-4) -> bool:
    """Whether lists have the same items and scores. Items whose scores are as good as equal may change places."""
    if len({item["item_id"] for item in one}) != len(one):
        return False
    scores, others = ([item["score"] for item in items] for items in (one, other))
    if len(scores) != len(others) or any(abs(a - b) > tolerance for a, b in zip(scores, others)):
        return False
    wanted = {item["item_id"]: item["score"] for item in other}
    return all(abs(wanted.get(item["item_id"], others[-1]) - item["score"]) <= tolerance for item in one)


def measure_faults(folder: Path, newer: Path, serve: list[str], port: int, environment: dict, options) -> None:
    from etegrec_hf.serving.loaded_model import revision_of

    pipelines = {}
    for path in (folder, newer):
        model, tokenizer = load_recommender(str(path))
        pipelines[revision_of(str(path), path)] = SequentialRecommendationPipeline(model=model, tokenizer=tokenizer)
    server = Server([*serve, "--reload-seconds", "1"], port, environment).wait("/ready")
    asyncio.run(load(port, 16, 5, 0))
    before = server.megabytes
    mix = Mix(port, pipelines)

    def replace() -> None:
        folder.rename(folder.with_name("older"))
        newer.rename(folder)

    start = time.perf_counter()
    asyncio.run(mix.run(options.requests, 32, replace))
    seconds, after = time.perf_counter() - start, server.megabytes
    code = server.end()
    print(f"{sum(mix.statuses.values())} answers in {seconds:.0f} s; {after - before:+.0f} MB over {before:.0f}")
    print(", ".join(f"{name}: {count}" for name, count in sorted(mix.statuses.items())))
    n_compared = mix.compare()
    revisions = {answer["revision"] for _, answer in mix.answered}
    print(f"{n_compared} lists compared, of {len(revisions)} revisions; {mix.identical} are the same, item by item; "
          f"{mix.ties} have a tie at the beam's edge; {len(mix.wrong)} wrong; exit code {code}")  # fmt: skip
    for line in mix.wrong[:10]:
        print("wrong:", line)
    print("| figure | measured | goal |")
    print("| --- | --- | --- |")
    print(f"| memory after {options.requests} requests, over that of the model | {after - before:+.0f} MB | +100 MB |")
    if mix.wrong or code:
        sys.exit(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20, help="seconds per measurement of speed; 0 for none")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=2000, help="number of requests of all kinds; 0 for none")
    parser.add_argument("--small", action="store_true", help="a model of 1 + 1 layers of width 32, for many requests")
    parser.add_argument("--runtime", default="torch", help="runtime of the server: torch or onnx")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--port", type=int, default=8765)
    options = parser.parse_args()
    parent = Path(tempfile.mkdtemp(prefix="serving_http_"))
    try:
        folder, newer = parent / "model", parent / "newer"
        write_model(folder, 0, SMALL if options.small else {})
        write_model(newer, 1, SMALL if options.small else {})
        environment = {"OMP_NUM_THREADS": str(options.threads)}
        serve = [sys.executable, "-m", "etegrec_hf", "serve", str(folder), "--port", str(options.port)]
        serve += ["--runtime", options.runtime]
        if options.seconds:
            measure_speed(folder, serve, options.port, environment, options)
        if options.requests:
            measure_faults(folder, newer, serve, options.port, environment, options)
    finally:
        shutil.rmtree(parent)


if __name__ == "__main__":
    main()
