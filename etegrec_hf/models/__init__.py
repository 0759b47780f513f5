"""What ships to a Hub repository, verbatim: models, code trie, decoding and tokenizer.

Importing it makes these classes known to transformers: Auto classes and `pipeline` then load a folder with them, and
need no code from the folder. This file doesn't ship.
"""

from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM, AutoTokenizer
from transformers.pipelines import PIPELINE_REGISTRY

from .configuration_etegrec import ETEGRecConfig
from .configuration_rqvae import RQVAEConfig
from .modeling_etegrec import ETEGRecForConditionalGeneration
from .modeling_rqvae import RQVAEModel
from .pipeline_etegrec import SequentialRecommendationPipeline
from .tokenization_etegrec import ETEGRecTokenizer

for config in (RQVAEConfig, ETEGRecConfig):
    AutoConfig.register(config.model_type, config)
AutoModel.register(RQVAEConfig, RQVAEModel)
for auto in (AutoModel, AutoModelForSeq2SeqLM):
    auto.register(ETEGRecConfig, ETEGRecForConditionalGeneration)
AutoTokenizer.register(ETEGRecConfig, ETEGRecTokenizer)
# As transformers enters its own tasks; its `register_pipeline` would make the pipeline save a configuration of its own
PIPELINE_REGISTRY.supported_tasks["sequential-recommendation"] = {
    "impl": SequentialRecommendationPipeline,
    "pt": (AutoModel,),
    "type": "text",
}
