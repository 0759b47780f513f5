"""Does what the toolkit of Inference Endpoints does with a repository's `handler.py`: run by `test_endpoint.py`.

Prints, as JSON, what each request is answered by: a list, or the error that the toolkit would make of an exception.
"""

import importlib.util
import json
import sys
from pathlib import Path


def main(folder: str, requests: str) -> dict:
    absent = [
        name for name in ("etegrec_hf", "datasets", "trl", "accelerate") if importlib.util.find_spec(name) is None
    ]
    spec = importlib.util.spec_from_file_location("handler", Path(folder, "handler.py"))
    sys.path.insert(0, folder)
    module = sys.modules["handler"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    handler = module.EndpointHandler(folder)
    answers = []
    for request in json.loads(requests):
        try:
            answers.append(handler(request))
        except Exception as error:
            answers.append({"error": str(error)})
    return {"absent": absent, "answers": answers}


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
