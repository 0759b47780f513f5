"""What importing the package does, each time in a new process: transformers' Auto classes and `pipeline` know ours."""

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
    for arguments in ({}, {"trust_remote_code": True}, {"task": "sequential-recommendation"}):
        found = pipeline(model=folder + "/mine", **arguments)
        assert type(found) is type(loaded[-1])
        assert found(["i1", "i2"], top_k=3) == loaded[-1](["i1", "i2"], top_k=3)
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


FIRST = {
    "a public name": "from etegrec_hf import ETEGRecTokenizer",
    "transformers": "import transformers, etegrec_hf; etegrec_hf.ETEGRecConfig",
    "Auto classes": "from transformers import AutoModel, AutoTokenizer, pipeline; import etegrec_hf.models",
    "our pipeline's module": "import etegrec_hf.models.pipeline_etegrec",
    "our configuration's module": "import etegrec_hf.models.configuration_etegrec",
    "a command": "import etegrec_hf.cli.recommend",
}


@pytest.mark.parametrize(
    "first", [name if name == "Auto classes" else pytest.param(name, marks=pytest.mark.slow) for name in FIRST]
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
