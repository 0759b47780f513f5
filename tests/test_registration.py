"""transformers' Auto classes and `pipeline` know ours in whatever order things are imported, each in a new process."""

import ast
import inspect
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import etegrec_hf
from etegrec_hf import RQVAEConfig, RQVAEModel

# loads everything of a folder without `trust_remote_code`, and prints where the classes come from
LOAD = """
def load(folder):
    import json
    from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM, AutoTokenizer, pipeline

    autos = AutoConfig, AutoTokenizer, AutoModel, AutoModelForSeq2SeqLM
    loaded = [auto.from_pretrained(folder + "/mine") for auto in autos]
    loaded += [AutoConfig.from_pretrained(folder + "/rqvae"), AutoModel.from_pretrained(folder + "/rqvae")]
    loaded += [AutoModel.from_config(loaded[0])]
    loaded += [pipeline("sequential-recommendation", model=loaded[2], tokenizer=loaded[1])]
    assert len(loaded[-1](["i1", "i2"], top_k=3)) == 3
    print(json.dumps([f"{type(thing).__module__}.{type(thing).__name__}" for thing in loaded]))
"""
OURS = [
    "etegrec_hf.models.configuration_etegrec.ETEGRecConfig",
    "etegrec_hf.models.tokenization_etegrec.ETEGRecTokenizer",
    "etegrec_hf.models.modeling_etegrec.ETEGRecForConditionalGeneration",
    "etegrec_hf.models.modeling_etegrec.ETEGRecForConditionalGeneration",
    "etegrec_hf.models.configuration_rqvae.RQVAEConfig",
    "etegrec_hf.models.modeling_rqvae.RQVAEModel",
    "etegrec_hf.models.modeling_etegrec.ETEGRecForConditionalGeneration",
    "etegrec_hf.models.pipeline_etegrec.SequentialRecommendationPipeline",
]


def run(code: str, *arguments: str, file: Path | None = None) -> str:
    """What a new Python prints."""
    command = [sys.executable, str(file)] if file else [sys.executable, "-c", textwrap.dedent(code)]
    paths = [str(Path(etegrec_hf.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    done = subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def folders(folder) -> str:
    """Where a recommender (`mine`) and an item tokenizer (`rqvae`) lie."""
    sizes = {"input_size": 12, "hidden_sizes": [16], "latent_size": 8, "codebook_size": 8}
    RQVAEModel(RQVAEConfig(**sizes)).save_pretrained(Path(folder).with_name("rqvae"))
    return str(Path(folder).parent)


def test_the_package_alone_imports_neither_torch_nor_transformers():
    code = """
        import sys
        import etegrec_hf, etegrec_hf.cli.main
        assert set(etegrec_hf.__all__) <= set(dir(etegrec_hf)), dir(etegrec_hf)
        assert etegrec_hf.cli.main.main(["--help"]) == 0
        print([name for name in ("torch", "transformers", "trl", "datasets", "numpy") if name in sys.modules])
    """
    assert run(code).splitlines()[-1] == "[]"


def test_auto_classes_are_imported_without_our_models():
    code = """
        import sys
        import etegrec_hf
        from transformers import AutoModel, AutoTokenizer
        print([name for name in sys.modules if name.startswith("etegrec_hf.models.modeling")])
    """
    assert run(code).splitlines()[-1] == "[]"


FIRST = {
    "the package": "import etegrec_hf",
    "transformers": "import transformers, etegrec_hf",
    "Auto classes": "from transformers import AutoModel, AutoTokenizer, pipeline; import etegrec_hf",
    "T5, which imports AutoModel": "import etegrec_hf; from transformers import T5ForConditionalGeneration",
    "our pipeline's module": "import etegrec_hf.models.pipeline_etegrec",
    "our tokenizer's module": "import etegrec_hf.models.tokenization_etegrec",
    "our configuration's module": "import etegrec_hf.models.configuration_etegrec",
    "reloaded": "import importlib, etegrec_hf, transformers.pipelines; importlib.reload(etegrec_hf)",
    "reloaded transformers": """
import importlib, etegrec_hf, transformers.models.auto.modeling_auto as auto; importlib.reload(auto)""",
}


@pytest.mark.parametrize(
    "first",
    [
        name if name in ("the package", "Auto classes") else pytest.param(name, marks=pytest.mark.slow)
        for name in FIRST
    ],
)
def test_whatever_is_imported_first(first, folders):
    code = f"{FIRST[first]}\n{LOAD}\nimport sys\nload(sys.argv[1])"
    assert json.loads(run(code, folders).splitlines()[-1]) == OURS


@pytest.mark.slow
def test_another_process_is_sent_a_configuration(folders, tmp_path):
    """A spawned worker imports what it unpickles, and nothing else of ours."""
    file = tmp_path / "spawn.py"
    file.write_text(
        f"""{LOAD}
def work(config, folder):
    load(folder)

if __name__ == "__main__":
    import multiprocessing, sys
    from etegrec_hf import ETEGRecConfig
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        pool.apply(work, (ETEGRecConfig(n_items=3), sys.argv[1]))
"""
    )
    assert json.loads(run("", folders, file=file).splitlines()[-1]) == OURS


def test_type_checkers_see_the_public_names():
    tree = ast.parse(Path(etegrec_hf.__file__).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {name.asname: node.module for node in block.body for name in node.names if name.asname == name.name}
    assert seen == etegrec_hf._LAZY
    assert list(seen.values()) == sorted(seen.values())


def test_the_source_of_transformers_stays_in_reach():
    import transformers.pipelines

    assert "PIPELINE_REGISTRY" in inspect.getsource(transformers.pipelines)
    assert "PIPELINE_REGISTRY" in transformers.pipelines.__loader__.get_source("transformers.pipelines")
