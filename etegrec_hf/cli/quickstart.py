"""`etegrec quickstart`: trains and evaluates a recommender on made-up data whose optimum is known."""

import json
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from transformers import AutoModel, AutoTokenizer

from ..data.checks import check_positive
from ..data.folders import check_output_dir, replace_text
from ..data.prepared import PreparedDataset
from ..data.synthetic import SyntheticProcess
from ..data.wording import counted
from ..evaluation.evaluate import EvaluateOptions, evaluate
from ..hub.model_folder import load_recommender, record_evaluation
from ..training.base.run_report import write_run_report
from ..training.item_tokenizer.arguments import RQVAETrainingArguments
from ..training.item_tokenizer.options import ItemTokenizerOptions
from ..training.recommender.arguments import ETEGRecTrainingArguments, FinetuningArguments
from ..training.recommender.options import RecommenderOptions
from .finetune import FinetuneArguments, finetune
from .parsing import parse
from .printing import PrintArguments
from .tables import print_metrics
from .train import TrainArguments, train
from .train_tokenizer import TokenizerArguments, train_tokenizer

EXAMPLES = """examples:
  etegrec quickstart --output-dir runs/quickstart
"""


@dataclass
class QuickstartArguments:
    """Output folder and size of the quickstart."""

    output_dir: str = field(
        metadata={"help": "A new folder: data/, tokenizer/, alternating/, model/, metrics.json, report.html."}
    )
    n_users: int = field(default=5000, metadata={"help": "Users of the made-up data."})
    n_items: int = field(default=240, metadata={"help": "Items of the made-up data."})
    epochs: int = field(default=4, metadata={"help": "Alternating epochs; SIA and PSA act from the third on."})
    finetune_epochs: int = field(default=4, metadata={"help": "Finetuning epochs."})
    seed: int = field(default=0, metadata={"help": "Random seed of data and training."})


def run(argv: list[str]) -> None:
    arguments, printed = parse("quickstart", argv, QuickstartArguments, PrintArguments, examples=EXAMPLES)
    with printed.apart():
        results = quickstart(arguments)
    rows = {"etegrec_hf": results["test"], **results["baselines"], "known optimum": results["optimum"]}
    printed.show(results, lambda: print_metrics("Test split of the made-up data", rows))
    print(f"{counted(round(results['seconds']), 'second')}; everything is in {arguments.output_dir}", file=sys.stderr)


def quickstart(arguments: QuickstartArguments) -> dict:
    """Makes data, trains every stage, evaluates the reloaded model, and writes `metrics.json`."""
    start = time.perf_counter()
    if arguments.epochs < 2 or arguments.epochs % 2:
        raise ValueError(
            f"`epochs` is {arguments.epochs}; give an even number from 2 on, as both models are trained in turns."
        )
    check_positive("finetune_epochs", arguments.finetune_epochs)
    folder = check_output_dir(arguments.output_dir)
    data, tokenizer, alternating, model = (
        str(folder / name) for name in ("data", "tokenizer", "alternating", "model")
    )
    process = SyntheticProcess(n_users=arguments.n_users, n_items=arguments.n_items, seed=arguments.seed)
    optimum = process.write(data)

    common: dict[str, Any] = {"seed": arguments.seed, "use_cpu": True}
    train_tokenizer(
        TokenizerArguments(data=data),
        ItemTokenizerOptions(hidden_sizes=[64], latent_size=32, num_levels=2, codebook_size=32),
        RQVAETrainingArguments(
            tokenizer,
            num_train_epochs=60,
            per_device_train_batch_size=256,
            save_strategy="no",
            logging_strategy="no",
            **common,
        ),
    )
    training: dict[str, Any] = {
        "per_device_train_batch_size": 32,
        "lr_scheduler_type": "cosine",
        "per_device_eval_batch_size": 256,
        "num_beams": 20,
        **common,
    }
    alternated = train(
        TrainArguments(data=data, tokenizer=tokenizer, eval_samples=500),
        RecommenderOptions(
            d_model=64,
            d_ff=128,
            d_kv=16,
            dropout_rate=0.2,
            decoder_dropout_rate=0.1,
            mixed_items=2,
        ),
        ETEGRecTrainingArguments(
            alternating, num_train_epochs=arguments.epochs, warm_epochs=2, learning_rate=2e-3, **training
        ),
    )
    finetuned = finetune(
        FinetuneArguments(model=alternating, data=data, eval_samples=500),
        FinetuningArguments(model, num_train_epochs=arguments.finetune_epochs, learning_rate=2e-3, **training),
    )
    prepared = PreparedDataset.load(data)
    trained, item_id_tokenizer = load_recommender(model)
    evaluation = evaluate(trained, item_id_tokenizer, prepared, EvaluateOptions(batch_size=256))
    record = record_evaluation(model, trained.config, evaluation)
    show_three_users(model, prepared)
    beside_optimum = replace(evaluation, baselines=evaluation.baselines | {"known optimum": optimum})
    report = write_run_report(finetuned, prepared, finetuned.eval_dataset, folder, (alternated,), beside_optimum)
    print(f"report: {report}")
    results = {
        "test": evaluation.metrics,
        "baselines": evaluation.baselines,
        "parts": evaluation.parts,
        "optimum": optimum,
        "protocol": evaluation.protocol,
        "seeds": record.seeds(),
        "seconds": time.perf_counter() - start,
    }
    replace_text(Path(folder, "metrics.json"), json.dumps(results, indent=2) + "\n")
    return results


def show_three_users(folder: str, data: PreparedDataset) -> None:
    """Recommends for the first three test users, with the saved model loaded by `AutoModel`."""
    model = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    title = dict(zip(data.item_ids, data.titles))
    for row in range(min(3, len(data.test))):
        history = [data.item_ids[index - 1] for index in data.test.row(row)[:-1]]
        items, _ = model.recommend(**tokenizer([history], return_tensors="pt"), top_k=3)
        print(f"\n{data.test.user_ids[row]} took: {', '.join(title[item_id] for item_id in history[-4:])}")
        print(f"  next may be: {', '.join(title[item_id] for item_id in tokenizer.ids_of(items[0]))}")
    print()
