"""HTML reports of trainers' runs."""

from pathlib import Path

from ...data.prepared import PreparedDataset
from ...data.sequences import SequenceDataset
from ...evaluation.baselines import baselines
from ...evaluation.comparison import paired_bootstrap
from ...evaluation.evaluate import Evaluation
from ...evaluation.metrics import KS, OURS
from ...evaluation.sample_recommendations import sample_recommendations
from ...hub.report import Report, RunLog, write_report
from .trainer import BaseTrainer

LISTED = 10  # items per sample recommendation


def write_run_report(
    trainer: BaseTrainer,
    data: PreparedDataset | None = None,
    evaluated: SequenceDataset | None = None,
    folder: str | Path | None = None,
    earlier: tuple[BaseTrainer, ...] = (),
    test: Evaluation | None = None,
) -> Path:
    """Writes `report.html` about a finished run, including the logs of runs that it was resumed from.

    Args:
        trainer ([`BaseTrainer`]): the trainer; its model is put into eval mode.
        data ([`PreparedDataset`], *optional*): dataset with the model's items, for baselines and sample
            recommendations.
        evaluated ([`SequenceDataset`], *optional*): the samples of `data.validation` that the run evaluated on.
        folder (`str` or `Path`, *optional*): folder of the report; by default the run's output folder.
        earlier (`tuple[BaseTrainer]`, *optional*): trainers of earlier stages, whose curves are shown too.
        test ([`Evaluation`], *optional*): evaluation of this model on the test split.

    Returns:
        `Path`: the file. It is enough if one process calls this function.
    """
    record = trainer.record_now()
    model = trainer.model.eval()
    config = model.config
    report = Report(
        title=f"{record.stages[-1]['stage'].capitalize()}: {Path(folder or trainer.args.output_dir).name}",
        record=record,
        logs=[RunLog(run.stage, run.state.log_history, run.state.epoch or 0.0, run.tokenizer_spans())
              for run in (*earlier, trainer)],
        codes=trainer.prefixes().cpu(),
        codebook_size=config.codebook_size,
        model={"weights": model.num_parameters()}
        | {name: getattr(config, name) for name in type(config).__annotations__ if name != "rqvae_config"},
        test={OURS: test.metrics, **test.baselines} if test else {},
        test_parts=test.parts if test else {},
        test_differences=_differences(test) if test else {},
    )  # fmt: skip
    if data is not None and evaluated is not None:
        split = data.validation.take(evaluated.rows)
        report.users = len(split)
        beams = trainer.args.num_beams
        report.samples = sample_recommendations(model, split, top_k=min(LISTED, beams), num_beams=beams)
        report.item_ids, report.item_titles = trainer.processing_class.item_ids, trainer.processing_class.item_titles
        report.systems, report.unmeasured = _systems(record.stages[-1], data, split)
    return write_report(folder or trainer.args.output_dir, report)


def _differences(test: Evaluation) -> dict[str, dict[str, dict[str, float]]]:
    """NDCG of the model less that of each baseline, at 10 or, of shorter lists, at the longest."""
    k = max(k for k in KS if k <= LISTED and f"ndcg@{k}" in test.metrics)
    found = {
        name: paired_bootstrap([test.ranks], [ranks], (k,), users=test.users_of_ranks)
        for name, ranks in test.baseline_ranks.items()
    }
    return {name: {f"ndcg@{k}": metrics[f"ndcg@{k}"]} for name, metrics in found.items()}


def _systems(stage: dict, data: PreparedDataset, split) -> tuple[dict[str, dict[str, float]], str]:
    """Returns validation metrics of the model and of baselines, and a reason if some are missing."""
    measured = stage["validation"]
    if not measured:
        return {}, (
            "These weights weren't evaluated during training (see eval_strategy), so there are no metrics to compare "
            "with the baselines; etegrec evaluate measures model and baselines."
        )
    systems = {OURS: measured}
    if "validation_before" in stage:
        systems["before this run"] = stage["validation_before"]
    if not len(data.train):
        return systems, "Training sequences were streamed, so baselines are missing; etegrec baselines measures them."
    rows = baselines(data, split)
    return systems | {
        system: {name: value for name, value in metrics.items() if name in measured}
        for system, metrics in rows.items()
    }, ""
