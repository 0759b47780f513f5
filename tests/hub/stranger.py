"""Uses a model by its id or folder with torch and transformers alone: run by `test_two_environments.py`.

Prints what came out as JSON, for the test to compare with what the publisher's own process gives.
"""

import importlib.util
import json
import sys

import torch
from transformers import AutoModel, AutoModelForSeq2SeqLM, AutoTokenizer, pipeline


def main(name: str, copy: str, push_to: str) -> dict:
    absent = [package for package in ("etegrec_hf", "datasets", "trl") if importlib.util.find_spec(package) is None]

    recommend = pipeline("sequential-recommendation", model=name, trust_remote_code=True)
    seen = {"absent": absent, "pipeline": recommend([["i1", "i2"], ["i3"]], top_k=5)}

    model = AutoModel.from_pretrained(name, trust_remote_code=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=True)
    batch = tokenizer([["i1", "i2"], ["i3"]], padding=True, return_tensors="pt")
    seen["input_ids"] = batch["input_ids"].tolist()
    seen["decoded"] = tokenizer.decode(batch["input_ids"][0])
    seen["items"] = model.recommend(**batch, top_k=5)[0].tolist()
    seen["generated"] = tokenizer.decode(model.generate(**batch, num_beams=5))
    seen["modules"] = [type(thing).__module__.split(".")[0] for thing in (model, model.config, tokenizer, recommend)]

    model.save_pretrained(copy)
    tokenizer.save_pretrained(copy)
    again = AutoModelForSeq2SeqLM.from_pretrained(copy, trust_remote_code=True).eval()
    same = AutoTokenizer.from_pretrained(copy, trust_remote_code=True)
    again.catalogue.check_tokenizer(same)
    seen["again"] = again.recommend(**batch, top_k=5)[0].tolist()

    torch.manual_seed(0)
    new = again.add_items(["new"], torch.randn(1, again.config.rqvae_config.input_size), same)
    seen["new"] = same.ids_of(again.recommend(**batch, top_k=1, allowed=new)[0])

    recommend.save_pretrained(f"{copy}-of-pipeline")
    saved = pipeline("sequential-recommendation", model=f"{copy}-of-pipeline", trust_remote_code=True)
    assert saved([["i1", "i2"], ["i3"]], top_k=5) == seen["pipeline"]

    if push_to:
        again.push_to_hub(push_to)
        same.push_to_hub(push_to)
        seen["pushed"] = pipeline(model=push_to, trust_remote_code=True)(["new"], top_k=1, allowed=["new"])
    return seen


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
