"""The report of a trainer's run."""

from pathlib import Path

from ...data.prepared import PreparedDataset
from ...data.sequences import SequenceDataset
from ...evaluation.baselines import baselines
from ...evaluation.comparison import paired_bootstrap
from ...evaluation.evaluate import Evaluation
from ...evaluation.metrics import KS
from ...evaluation.sample_recommendations import sample_recommendations
from ...hub.report import Report, RunLog, write_report
from .trainer import BaseTrainer

LISTED = 10  # sample recommendations


def write_run_report(
    trainer: BaseTrainer,
    data: PreparedDataset | None = None,
    evaluated: SequenceDataset | None = None,
    folder: str | Path | None = None,
    earlier: tuple[BaseTrainer, ...] = (),
    test: Evaluation | None = None,
) -> Path:
    """Writes `report.html` of a run that has ended, with all that it and the runs it was resumed from logged.

    Args:
        trainer ([`BaseTrainer`]): its model is put into eval mode.
        data ([`PreparedDataset`], *optional*): over the model's catalogue, for baselines and sample recommendations.
        evaluated ([`SequenceDataset`], *optional*): the samples of `data.validation` that were evaluated on.
        folder (`str` or `Path`, *optional*): to write into; by default the run's output folder.
        earlier (`tuple[BaseTrainer]`, *optional*): runs before, whose curves are shown too.
        test ([`Evaluation`], *optional*): of this model on the test split.

    Returns:
        `Path`: the file. One process is enough to write it.
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
        test={"this model": test.metrics, **test.baselines} if test else {},
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
        name: paired_bootstrap([test.ranks], [ranks], (k,)) for name, ranks in test.baseline_ranks.items()
    }  # fmt: skip
    return {name: {f"ndcg@{k}": metrics[f"ndcg@{k}"]} for name, metrics in found.items()}


def _systems(stage: dict, data: PreparedDataset, split) -> tuple[dict[str, dict[str, float]], str]:
    """Validation metrics of the model and of baselines, and why there are none."""
    measured = stage["validation"]
    if not measured:
        return {}, (
            "These weights were not evaluated in training (eval_strategy), so nothing stands beside the baselines; "
            "etegrec evaluate measures all of them."
        )
    systems = {"this model": measured}
    if "validation_before" in stage:
        systems["before this run"] = stage["validation_before"]
    if not len(data.train):
        return systems, "Training sequences were streamed, so no baseline was counted; etegrec baselines does it."
    rows = baselines(data, split)
    return systems | {
        system: {name: value for name, value in metrics.items() if name in measured}
        for system, metrics in rows.items()
    }, ""
