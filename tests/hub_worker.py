"""A process whose environment says where the Hub is: it loads, pushes and asks as its standard input says.

huggingface_hub reads HF_ENDPOINT and the like once, when it is imported, so the tests talk to it in here: one JSON
object a line in, `[function, keywords]`, and one out, `["ok", answer]` or `[kind of the error, its message]`.
"""

import hashlib
import json
import sys
import time
from typing import Any

from huggingface_hub import constants

from ddps import DDPSRefiner, hub
from ddps.card import CardMetadata, evaluation_results
from ddps.refiner import build_network


def load(source: str, **options: Any) -> dict[str, str]:
    config, weights, folder = hub.load_weights(source, build_network, **options)
    digest = hashlib.sha256(b"".join(weights[name].numpy().tobytes() for name in sorted(weights))).hexdigest()
    return {"name": config.name, "commit": folder.name, "digest": digest}


def push(folder: str, repo_id: str, card: dict[str, Any] | None = None, **options: Any) -> str:
    refiner = DDPSRefiner.from_pretrained(folder, device="cpu")
    metadata = None
    if card is not None:
        results = evaluation_results(card.pop("report"), "camvid", split="test", predictions="cgnet")
        metadata = CardMetadata(**card, results=results)
    return refiner.push_to_hub(repo_id, card=metadata, **options)


def whoami(token: str) -> str:
    from huggingface_hub import HfApi

    return HfApi().whoami(token=token)["name"]


def model_info(repo_id: str, **options: Any) -> dict[str, Any]:
    from huggingface_hub import HfApi

    info = HfApi().model_info(repo_id, **options)
    return {"sha": info.sha, "private": info.private, "tag": info.pipeline_tag, "library": info.library_name}


def main() -> None:
    # Retries wait for seconds; the server that they ask here needs no time to get well.
    time.sleep = lambda seconds: None
    # A download that breaks off is resumed at a whole chunk, of 10 MB, which no tiny model has.
    constants.DOWNLOAD_CHUNK_SIZE = 4096
    for line in sys.stdin:
        function, options = json.loads(line)
        try:
            answer = ["ok", globals()[function](**options)]
        except Exception as error:
            answer = [type(error).__name__, str(error)]
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
