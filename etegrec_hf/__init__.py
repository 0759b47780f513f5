"""End-to-end generative recommendation with learnable item tokenization, for the Hugging Face ecosystem."""

from importlib import import_module

from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM, AutoTokenizer
from transformers.pipelines import PIPELINE_REGISTRY

from .models.configuration_etegrec import ETEGRecConfig
from .models.configuration_rqvae import RQVAEConfig
from .models.modeling_etegrec import ETEGRecForConditionalGeneration
from .models.modeling_rqvae import RQVAEModel
from .models.pipeline_etegrec import SequentialRecommendationPipeline
from .models.tokenization_etegrec import ETEGRecTokenizer

__version__ = "0.1.0"

AutoConfig.register(RQVAEConfig.model_type, RQVAEConfig)
AutoConfig.register(ETEGRecConfig.model_type, ETEGRecConfig)
AutoModel.register(RQVAEConfig, RQVAEModel)
AutoModel.register(ETEGRecConfig, ETEGRecForConditionalGeneration)
AutoModelForSeq2SeqLM.register(ETEGRecConfig, ETEGRecForConditionalGeneration)
AutoTokenizer.register(ETEGRecConfig, ETEGRecTokenizer)
PIPELINE_REGISTRY.register_pipeline(
    "sequential-recommendation", pipeline_class=SequentialRecommendationPipeline, pt_model=AutoModel, type="text"
)

# Public names that are imported when first asked for, and where they live
_LAZY = {
    "CodeTrie": "models.code_trie",
    "CodeTrieLogitsProcessor": "models.logits_process_etegrec",
    "EncodedHistory": "models.encoded_history_etegrec",
    "ETEGRecTrainer": "training.trainer",
    "ETEGRecTrainingArguments": "training.arguments",
    "FinetuningArguments": "training.arguments",
    "RQVAETrainer": "training.rqvae_trainer",
    "RQVAETrainingArguments": "training.arguments",
    "ETEGRecGRPOConfig": "training.grpo_arguments",
    "ETEGRecGRPOTrainer": "training.grpo_trainer",
    "prompt_dataset": "training.grpo_data",
    "HitReward": "training.rewards",
    "SemanticReward": "training.rewards",
    "PrefixReward": "training.rewards",
    "RankReward": "training.rewards",
    "TransitionReward": "training.rewards",
    "CollaborativeReward": "training.rewards",
    "PopularityPenalty": "training.rewards",
    "AlternatingPhaseCallback": "training.callbacks",
    "CodeRefreshCallback": "training.callbacks",
    "assign_item_codes": "training.item_codes",
    "build_recommender": "training.item_codes",
    "CollaborativeTrainer": "training.collaborative",
    "CollaborativeTrainingArguments": "training.collaborative",
    "PreparedDataset": "data.prepared",
    "SourceOptions": "data.sources",
    "prepare": "data.prepare",
    "TrainingRecord": "hub.training_record",
    "publish": "hub.publish",
    "publish_dataset": "hub.dataset_folder",
    "WholeSequenceDataset": "data.sequences",
    "SequenceDataset": "data.sequences",
    "StreamedSequences": "data.streamed_sequences",
    "tokenizer_diagnostics": "evaluation.code_diagnostics",
    "RecommendOptions": "evaluation.batch_recommend",
    "batch_recommend": "evaluation.batch_recommend",
    "recommend_rows": "evaluation.batch_recommend",
}

__all__ = [
    "ETEGRecConfig",
    "ETEGRecForConditionalGeneration",
    "ETEGRecTokenizer",
    "RQVAEConfig",
    "RQVAEModel",
    "SequentialRecommendationPipeline",
    *_LAZY,
]


def __getattr__(name: str):
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
