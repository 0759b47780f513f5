"""End-to-end generative recommendation with learnable item tokenization, for the Hugging Face ecosystem."""

import ast
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

__version__ = "0.1.0"

# The public names. Type checkers and editors read these imports, and so does this module: it imports a name's module
# when the name is first asked for, so that `import etegrec_hf` needs neither torch nor transformers.
# isort: off
if TYPE_CHECKING:
    from .data.prepare import prepare as prepare
    from .data.prepared import PreparedDataset as PreparedDataset
    from .data.sequences import (
        SequenceDataset as SequenceDataset,
        WholeSequenceDataset as WholeSequenceDataset,
    )
    from .data.sources import SourceOptions as SourceOptions
    from .data.streamed_sequences import StreamedSequences as StreamedSequences
    from .data.transitions import strongest_transitions as strongest_transitions
    from .data.users.histories import (
        UserHistories as UserHistories,
        read_histories as read_histories,
    )
    from .evaluation.batch_recommend import (
        RecommendOptions as RecommendOptions,
        batch_recommend as batch_recommend,
        recommend_rows as recommend_rows,
    )
    from .evaluation.choose_settings import (
        ChosenSettings as ChosenSettings,
        choose_settings as choose_settings,
    )
    from .evaluation.code_diagnostics import tokenizer_diagnostics as tokenizer_diagnostics
    from .evaluation.comparison import compare as compare
    from .evaluation.evaluate import (
        EvaluateOptions as EvaluateOptions,
        Evaluation as Evaluation,
        evaluate as evaluate,
    )
    from .evaluation.memorisation import memorised_targets as memorised_targets
    from .hub.dataset_folder import publish_dataset as publish_dataset
    from .hub.publish import publish as publish
    from .hub.repository import RepositoryOptions as RepositoryOptions
    from .hub.training_record import TrainingRecord as TrainingRecord
    from .models.beam_search import Beam as Beam
    from .models.code_distribution import CodeDistribution as CodeDistribution
    from .models.code_trie import CodeTrie as CodeTrie
    from .models.configuration_etegrec import ETEGRecConfig as ETEGRecConfig
    from .models.configuration_rqvae import RQVAEConfig as RQVAEConfig
    from .models.encoded_history import EncodedHistory as EncodedHistory
    from .models.item_catalogue import ItemCatalogue as ItemCatalogue
    from .models.logits_process import CodeTrieLogitsProcessor as CodeTrieLogitsProcessor
    from .models.modeling_etegrec import ETEGRecForConditionalGeneration as ETEGRecForConditionalGeneration
    from .models.modeling_rqvae import RQVAEModel as RQVAEModel
    from .models.pipeline_etegrec import SequentialRecommendationPipeline as SequentialRecommendationPipeline
    from .models.search_options import (
        SearchOptions as SearchOptions,
        SearchSettings as SearchSettings,
    )
    from .models.tokenization_etegrec import ETEGRecTokenizer as ETEGRecTokenizer
    from .runtime.export import export as export
    from .runtime.recommender import OnnxRecommender as OnnxRecommender
    from .runtime.requests import RequestOptions as RequestOptions
    from .serving.options import ServeOptions as ServeOptions
    from .training.base.run_report import write_run_report as write_run_report
    from .training.collaborative.arguments import (
        CollaborativeSizes as CollaborativeSizes,
        CollaborativeTrainingArguments as CollaborativeTrainingArguments,
    )
    from .training.collaborative.fit import embed_collaborative as embed_collaborative
    from .training.collaborative.trainer import CollaborativeTrainer as CollaborativeTrainer
    from .training.from_log.fit import FitResult as FitResult, fit as fit
    from .training.from_log.options import FitOptions as FitOptions
    from .training.grpo.arguments import ETEGRecGRPOConfig as ETEGRecGRPOConfig
    from .training.grpo.fit import train_by_rewards as train_by_rewards
    from .training.grpo.prompts import prompt_dataset as prompt_dataset
    from .training.grpo.rewards import (
        CollaborativeReward as CollaborativeReward,
        HitReward as HitReward,
        PopularityPenalty as PopularityPenalty,
        PrefixReward as PrefixReward,
        RankReward as RankReward,
        SemanticReward as SemanticReward,
        TransitionReward as TransitionReward,
    )
    from .training.grpo.trainer import ETEGRecGRPOTrainer as ETEGRecGRPOTrainer
    from .training.item_tokenizer.arguments import RQVAETrainingArguments as RQVAETrainingArguments
    from .training.item_tokenizer.fit import train_item_tokenizer as train_item_tokenizer
    from .training.item_tokenizer.item_codes import (
        assign_item_codes as assign_item_codes,
        build_recommender as build_recommender,
    )
    from .training.item_tokenizer.options import ItemTokenizerOptions as ItemTokenizerOptions
    from .training.item_tokenizer.trainer import (
        ItemEmbeddingDataset as ItemEmbeddingDataset,
        RQVAETrainer as RQVAETrainer,
    )
    from .training.recommender.arguments import (
        ETEGRecTrainingArguments as ETEGRecTrainingArguments,
        FinetuningArguments as FinetuningArguments,
    )
    from .training.recommender.callbacks import (
        AlternatingPhaseCallback as AlternatingPhaseCallback,
        CodeRefreshCallback as CodeRefreshCallback,
    )
    from .training.recommender.fit import (
        RecommenderData as RecommenderData,
        finetune_recommender as finetune_recommender,
        train_recommender as train_recommender,
    )
    from .training.recommender.options import RecommenderOptions as RecommenderOptions
    from .training.recommender.trainer import ETEGRecTrainer as ETEGRecTrainer
# isort: on


def _modules_of_names() -> dict[str, str]:
    """Returns the module of each public name, as the imports above say."""
    (public,) = (node for node in ast.parse(Path(__file__).read_text("utf-8")).body if isinstance(node, ast.If))
    imports = (line for line in public.body if isinstance(line, ast.ImportFrom))
    return {name.name: f".{line.module}" for line in imports for name in line.names}


_MODULES = _modules_of_names()
__all__ = [*_MODULES]


def __getattr__(name: str):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name], __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
