"""Tells transformers' Auto classes and `pipeline` of this package's classes, without importing transformers.

Each module of transformers in `AFTER` is given our entries as soon as it is imported, or at once where it already is.
That takes an import hook, since this package and transformers may be imported in either order. Configurations and the
tokenizer are small and imported then. Models and the pipeline are only named, and imported when they are looked up:
transformers imports its Auto classes amid modules that they need.
"""

import sys
from collections import UserDict
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from pkgutil import resolve_name
from types import ModuleType

MODELS = f"{__package__}.models"


def register_configs(configuration_auto: ModuleType) -> None:
    """For `AutoConfig`."""
    from .models.configuration_etegrec import ETEGRecConfig
    from .models.configuration_rqvae import RQVAEConfig

    for config in (RQVAEConfig, ETEGRecConfig):
        configuration_auto.AutoConfig.register(config.model_type, config, exist_ok=True)


class ModelClasses(UserDict):
    """The models that an Auto class was told of, by configuration; a name is imported when it is looked up."""

    def __getitem__(self, config):
        model = super().__getitem__(config)
        return resolve_name(model) if isinstance(model, str) else model


def register_models(modeling_auto: ModuleType) -> None:
    """For `AutoModel` and `AutoModelForSeq2SeqLM`."""
    from .models.configuration_etegrec import ETEGRecConfig
    from .models.configuration_rqvae import RQVAEConfig

    recommender = f"{MODELS}.modeling_etegrec:ETEGRecForConditionalGeneration"
    for auto in (modeling_auto.AutoModel, modeling_auto.AutoModelForSeq2SeqLM):
        told = auto._model_mapping._extra_content
        if not isinstance(told, ModelClasses):
            auto._model_mapping._extra_content = ModelClasses(told)
        auto.register(ETEGRecConfig, recommender, exist_ok=True)
    modeling_auto.AutoModel.register(RQVAEConfig, f"{MODELS}.modeling_rqvae:RQVAEModel", exist_ok=True)


def register_tokenizer(tokenization_auto: ModuleType) -> None:
    """For `AutoTokenizer`."""
    from .models.configuration_etegrec import ETEGRecConfig
    from .models.tokenization_etegrec import ETEGRecTokenizer

    tokenization_auto.AutoTokenizer.register(ETEGRecConfig, ETEGRecTokenizer, exist_ok=True)


def register_pipeline(pipelines: ModuleType) -> None:
    """For `pipeline("sequential-recommendation")`; the entry looks like those of transformers' own tasks."""
    pipelines.PIPELINE_REGISTRY.supported_tasks["sequential-recommendation"] = {
        "impl": f"{MODELS}.pipeline_etegrec.SequentialRecommendationPipeline",
        "pt": (pipelines.AutoModel,),
        "type": "text",
    }


AFTER = {
    "transformers.models.auto.configuration_auto": register_configs,
    "transformers.models.auto.modeling_auto": register_models,
    "transformers.models.auto.tokenization_auto": register_tokenizer,
    "transformers.pipelines": register_pipeline,
}


class ThenRegister(Loader):
    """A loader that registers our classes after it has executed a module, and is the given one otherwise."""

    def __init__(self, loader: Loader):
        self.loader = loader

    def __getattr__(self, name: str):
        return getattr(self.loader, name)

    def create_module(self, spec):
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        AFTER[module.__name__](module)


class RegisterAfterImport(MetaPathFinder):
    """Finds the modules above as the finders after it do, and registers our classes once they are executed."""

    def find_spec(self, name, path, target=None):
        if name not in AFTER:
            return None
        others = sys.meta_path[sys.meta_path.index(self) + 1 :]
        spec = next(filter(None, (finder.find_spec(name, path, target) for finder in others)), None)
        if spec is not None and spec.loader is not None:
            spec.loader = ThenRegister(spec.loader)
        return spec


FINDER = RegisterAfterImport()


def register() -> None:
    """Registers with what is imported of transformers, and sees to the rest; again makes no difference."""
    if FINDER not in sys.meta_path:
        sys.meta_path.insert(0, FINDER)
    for name, register_with in AFTER.items():
        if name in sys.modules:
            register_with(import_module(name))  # waits for a thread that is importing it
