# /// script
# requires-python = ">=3.11"
# dependencies = ["etegrec_hf[ray]"]
# ///
"""Recommends for all users of a prepared dataset on Ray Data, if one machine isn't enough.

    pip install 'etegrec_hf[ray]'
    python examples/batch_recommend_ray.py --model MODEL --data DATA --output FILE.parquet [--actors 8]

File and options are those of `etegrec recommend --data`. MODEL is an id on the Hub, or a folder like DATA that all
machines of the cluster can read. If no cluster is running, Ray starts one on this machine.
"""

from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import ray
from transformers import HfArgumentParser

from etegrec_hf import ETEGRecForConditionalGeneration, ETEGRecTokenizer, RecommendOptions, recommend_rows
from etegrec_hf.data.folders import replace_file
from etegrec_hf.data.table_files import TABLE_ENDINGS, check_ending, write_tables
from etegrec_hf.evaluation.batch_recommend import COLUMNS, schema_of


@dataclass
class Arguments:
    model: str
    data: str
    output: str
    actors: int = field(default=1, metadata={"help": "Models that work at the same time, each on a CPU core."})
    gpus_per_actor: float = field(default=0, metadata={"help": "GPUs per model; 0 for none."})


class Recommender:
    """Loads the model once and recommends for many blocks of rows."""

    def __init__(self, name: str, options: RecommendOptions, device: str):
        self.model = ETEGRecForConditionalGeneration.from_pretrained(name).eval().to(device)
        self.tokenizer = ETEGRecTokenizer.from_pretrained(name)
        self.options = options

    def __call__(self, rows: pa.Table) -> pa.Table:
        return recommend_rows(self.model, self.tokenizer, rows, self.options)


def main(arguments: Arguments, options: RecommendOptions) -> None:
    output = Path(arguments.output)
    check_ending(output, TABLE_ENDINGS)
    for name in ("exclude", "allowed"):
        if getattr(options, name) is not None:
            raise SystemExit(f"`{name}` has no meaning here; leave it out, or use `etegrec recommend`.")
    ray.init(ignore_reinit_error=True)
    cores = int(ray.cluster_resources()["CPU"])
    if arguments.actors >= cores:  # Ray would wait forever
        raise SystemExit(
            f"`actors` is {arguments.actors}, but the cluster has {cores} CPU cores; leave one core for reading."
        )
    ray.data.DataContext.get_current().execution_options.preserve_order = True
    rows = ray.data.read_parquet(f"{arguments.data}/sequences/{options.split}.parquet").select_columns(COLUMNS)
    recommended = rows.repartition(target_num_rows_per_block=options.shard_size).map_batches(
        Recommender,
        fn_constructor_args=(arguments.model, options, "cuda" if arguments.gpus_per_actor else "cpu"),
        batch_format="pyarrow",
        batch_size=None,  # whole blocks
        compute=ray.data.ActorPoolStrategy(size=arguments.actors),
        num_cpus=1,
        num_gpus=arguments.gpus_per_actor,
    )

    tables = recommended.iter_batches(batch_format="pyarrow", batch_size=None)  # Ray works while this is iterated
    replace_file(output, lambda beside: write_tables(beside, output.suffix, schema_of(options), tables))


if __name__ == "__main__":
    main(*HfArgumentParser((Arguments, RecommendOptions)).parse_args_into_dataclasses())
