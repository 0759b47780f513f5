"""End-to-end generative recommendation with learnable item tokenization, for the Hugging Face ecosystem."""

from importlib import import_module
from typing import TYPE_CHECKING

from .registration import register

__version__ = "0.1.0"

register()

# Public names and where they live: imported when first asked for, so that `import etegrec_hf` needs neither torch nor
# transformers. Type checkers and editors read the same from the imports below.
_LAZY = {
    "ETEGRecConfig": "models.configuration_etegrec",
    "ETEGRecForConditionalGeneration": "models.modeling_etegrec",
    "ETEGRecTokenizer": "models.tokenization_etegrec",
    "RQVAEConfig": "models.configuration_rqvae",
    "RQVAEModel": "models.modeling_rqvae",
    "SequentialRecommendationPipeline": "models.pipeline_etegrec",
    "CodeTrie": "models.code_trie",
    "CodeTrieLogitsProcessor": "models.logits_process",
    "EncodedHistory": "models.encoded_history",
    "ETEGRecTrainer": "training.recommender.trainer",
    "ETEGRecTrainingArguments": "training.recommender.arguments",
    "FinetuningArguments": "training.recommender.arguments",
    "RQVAETrainer": "training.item_tokenizer.trainer",
    "RQVAETrainingArguments": "training.item_tokenizer.arguments",
    "ETEGRecGRPOConfig": "training.grpo.arguments",
    "ETEGRecGRPOTrainer": "training.grpo.trainer",
    "prompt_dataset": "training.grpo.prompts",
    "HitReward": "training.grpo.rewards",
    "SemanticReward": "training.grpo.rewards",
    "PrefixReward": "training.grpo.rewards",
    "RankReward": "training.grpo.rewards",
    "TransitionReward": "training.grpo.rewards",
    "CollaborativeReward": "training.grpo.rewards",
    "PopularityPenalty": "training.grpo.rewards",
    "write_run_report": "training.base.run_report",
    "AlternatingPhaseCallback": "training.recommender.callbacks",
    "CodeRefreshCallback": "training.recommender.callbacks",
    "assign_item_codes": "training.item_tokenizer.item_codes",
    "build_recommender": "training.item_tokenizer.item_codes",
    "CollaborativeTrainer": "training.collaborative.trainer",
    "CollaborativeTrainingArguments": "training.collaborative.arguments",
    "PreparedDataset": "data.prepared",
    "SourceOptions": "data.sources",
    "prepare": "data.prepare",
    "TrainingRecord": "hub.training_record",
    "publish": "hub.publish",
    "publish_dataset": "hub.dataset_folder",
    "WholeSequenceDataset": "data.sequences",
    "SequenceDataset": "data.sequences",
    "StreamedSequences": "data.streamed_sequences",
    "strongest_transitions": "data.transitions",
    "tokenizer_diagnostics": "evaluation.code_diagnostics",
    "RecommendOptions": "evaluation.batch_recommend",
    "batch_recommend": "evaluation.batch_recommend",
    "recommend_rows": "evaluation.batch_recommend",
}

# isort: off
if TYPE_CHECKING:
    from .data.prepare import prepare as prepare
    from .data.prepared import PreparedDataset as PreparedDataset
    from .data.sequences import SequenceDataset as SequenceDataset, WholeSequenceDataset as WholeSequenceDataset
    from .data.sources import SourceOptions as SourceOptions
    from .data.streamed_sequences import StreamedSequences as StreamedSequences
    from .data.transitions import strongest_transitions as strongest_transitions
    from .evaluation.batch_recommend import (
        RecommendOptions as RecommendOptions,
        batch_recommend as batch_recommend,
        recommend_rows as recommend_rows,
    )
    from .evaluation.code_diagnostics import tokenizer_diagnostics as tokenizer_diagnostics
    from .hub.dataset_folder import publish_dataset as publish_dataset
    from .hub.publish import publish as publish
    from .hub.training_record import TrainingRecord as TrainingRecord
    from .models.code_trie import CodeTrie as CodeTrie
    from .models.configuration_etegrec import ETEGRecConfig as ETEGRecConfig
    from .models.configuration_rqvae import RQVAEConfig as RQVAEConfig
    from .models.encoded_history import EncodedHistory as EncodedHistory
    from .models.logits_process import CodeTrieLogitsProcessor as CodeTrieLogitsProcessor
    from .models.modeling_etegrec import ETEGRecForConditionalGeneration as ETEGRecForConditionalGeneration
    from .models.modeling_rqvae import RQVAEModel as RQVAEModel
    from .models.pipeline_etegrec import SequentialRecommendationPipeline as SequentialRecommendationPipeline
    from .models.tokenization_etegrec import ETEGRecTokenizer as ETEGRecTokenizer
    from .training.recommender.arguments import (
        ETEGRecTrainingArguments as ETEGRecTrainingArguments,
        FinetuningArguments as FinetuningArguments,
    )
    from .training.item_tokenizer.arguments import RQVAETrainingArguments as RQVAETrainingArguments
    from .training.recommender.callbacks import (
        AlternatingPhaseCallback as AlternatingPhaseCallback,
        CodeRefreshCallback as CodeRefreshCallback,
    )
    from .training.collaborative.trainer import CollaborativeTrainer as CollaborativeTrainer
    from .training.collaborative.arguments import CollaborativeTrainingArguments as CollaborativeTrainingArguments
    from .training.grpo.arguments import ETEGRecGRPOConfig as ETEGRecGRPOConfig
    from .training.grpo.prompts import prompt_dataset as prompt_dataset
    from .training.grpo.trainer import ETEGRecGRPOTrainer as ETEGRecGRPOTrainer
    from .training.item_tokenizer.item_codes import (
        assign_item_codes as assign_item_codes,
        build_recommender as build_recommender,
    )
    from .training.grpo.rewards import (
        CollaborativeReward as CollaborativeReward,
        HitReward as HitReward,
        PopularityPenalty as PopularityPenalty,
        PrefixReward as PrefixReward,
        RankReward as RankReward,
        SemanticReward as SemanticReward,
        TransitionReward as TransitionReward,
    )
    from .training.item_tokenizer.trainer import RQVAETrainer as RQVAETrainer
    from .training.base.run_report import write_run_report as write_run_report
    from .training.recommender.trainer import ETEGRecTrainer as ETEGRecTrainer
# isort: on

__all__ = [*_LAZY]


def __getattr__(name: str):
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
