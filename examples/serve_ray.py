# /// script
# requires-python = ">=3.11"
# dependencies = ["etegrec_hf[ray]"]
# ///
"""Serves a model over HTTP on Ray Serve, if one process isn't enough. Requests at the same time are one batch.

    pip install 'etegrec_hf[ray]'
    python examples/serve_ray.py --model MODEL [--replicas 4] [--gpus_per_replica 1] [--port 8000]

    curl localhost:8000 -d '{"history": ["item1", "item2"], "exclude": ["item3"], "top_k": 5}'

MODEL is an id on the Hub, or a folder that all machines of the cluster can read. Users without any item that the model
knows get popular items, or an empty list if the model has no counts of its items. If no cluster is running, Ray starts
one.
"""

import asyncio
from dataclasses import dataclass, field

import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse
from transformers import HfArgumentParser

from etegrec_hf import ETEGRecForConditionalGeneration, ETEGRecTokenizer, SequentialRecommendationPipeline


@dataclass
class Arguments:
    model: str
    host: str = "127.0.0.1"
    port: int = 8000
    replicas: int = field(default=1, metadata={"help": "Models that work at the same time, each on a CPU core."})
    gpus_per_replica: float = field(default=0, metadata={"help": "GPUs per model; 0 for none."})
    longest: int = field(default=20, metadata={"help": "Most items per list."})
    batch_size: int = field(default=64, metadata={"help": "Most requests per batch."})


@serve.deployment
class Recommender:
    """Loads the model once and answers batches of requests."""

    def __init__(self, arguments: Arguments):
        model = ETEGRecForConditionalGeneration.from_pretrained(arguments.model).eval()
        on_empty = "popular" if model.catalogue.item_counts.any() else "empty"
        self.longest = arguments.longest
        self.pipeline = SequentialRecommendationPipeline(
            model=model.to("cuda" if arguments.gpus_per_replica else "cpu"),
            tokenizer=ETEGRecTokenizer.from_pretrained(arguments.model),
            batch_size=arguments.batch_size,
            top_k=self.longest,
            unknown="skip",
            on_empty=on_empty,
        )
        self.recommend.set_max_batch_size(arguments.batch_size)

    async def __call__(self, request: Request) -> JSONResponse:
        try:
            wanted = self.checked(await request.json())
        except ValueError as error:
            return JSONResponse({"error": str(error)}, status_code=400)
        top_k = wanted.pop("top_k", min(10, self.longest))
        return JSONResponse((await self.recommend(wanted))[:top_k])

    def checked(self, wanted: object) -> dict:
        """Checks a request before it joins a batch, so that a wrong request doesn't fail the others."""
        if not isinstance(wanted, dict) or not {"history"} <= wanted.keys() <= {"history", "exclude", "top_k"}:
            raise ValueError("the request isn't an object with `history`; `exclude` and `top_k` are optional.")
        for name in wanted.keys() - {"top_k"}:
            if not isinstance(wanted[name], list) or not all(isinstance(item_id, str) for item_id in wanted[name]):
                raise ValueError(f"`{name}` is {wanted[name]!r}; give a list of item ids.")
        if "top_k" in wanted and (type(wanted["top_k"]) is not int or not 1 <= wanted["top_k"] <= self.longest):
            raise ValueError(f"`top_k` is {wanted['top_k']!r}; give a number from 1 to {self.longest}.")
        return dict(wanted)

    @serve.batch(batch_wait_timeout_s=0.005)
    async def recommend(self, requests: list[dict]) -> list[list[dict]]:
        return await asyncio.to_thread(self.pipeline, requests)  # so that further requests can queue meanwhile


def application(arguments: Arguments) -> serve.Application:
    """Returns the application of Ray Serve, which `serve run` and tests use too."""
    resources = {"num_cpus": 1, "num_gpus": arguments.gpus_per_replica}
    deployment = Recommender.options(num_replicas=arguments.replicas, ray_actor_options=resources)
    return deployment.bind(arguments)


def main(arguments: Arguments) -> None:
    ray.init(ignore_reinit_error=True)
    serve.start(http_options={"host": arguments.host, "port": arguments.port})
    serve.run(application(arguments), blocking=True)


if __name__ == "__main__":
    main(*HfArgumentParser(Arguments).parse_args_into_dataclasses())
