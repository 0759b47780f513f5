"""The code that is copied into every published model: models, code trie, decoding and tokenizer.

Importing this package registers its classes with transformers. Auto classes and `pipeline` then load a model folder
with them, and run no code from the folder. This file isn't copied.
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
# entered as transformers enters its own tasks: `register_pipeline` would make the pipeline save a second configuration
PIPELINE_REGISTRY.supported_tasks["sequential-recommendation"] = {
    "impl": SequentialRecommendationPipeline,
    "pt": (AutoModel,),
    "type": "text",
}
