"""A process beside the tests that uses the Hub of its environment (hub_worker.py), and models to compare with."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

from ddps import hub
from ddps.refiner import build_network

WORKER = Path(__file__).with_name("hub_worker.py")


def environment(endpoint, home, **more):
    """The environment of a process that knows this Hub only, and no token of the user who runs the tests."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
    # The server has no xet storage, which the client would upload to otherwise.
    own = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "OMP_NUM_THREADS": "1"}
    return {**kept, "HF_HUB_DISABLE_PROGRESS_BARS": "1", "NO_PROXY": "127.0.0.1,localhost", **own, **more}


class Worker:
    """A process that does what it is told, with the Hub of its environment."""

    def __init__(self, env):
        command = [sys.executable, str(WORKER)]
        self.process = subprocess.Popen(
            command, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

    def tell(self, function, **options):
        self.process.stdin.write(json.dumps([function, options], default=str) + "\n")
        self.process.stdin.flush()

    def answer(self):
        return json.loads(self.process.stdout.readline())

    def __call__(self, function, **options):
        self.tell(function, **options)
        kind, answer = self.answer()
        assert kind == "ok", f"{kind}: {answer}"
        return answer

    def refused(self, function, **options):
        """The one line of the InputError that it ends with."""
        self.tell(function, **options)
        kind, message = self.answer()
        assert kind == "InputError", f"{kind}: {message}"
        assert "\n" not in message and len(message) < 700
        return message

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.kill()
        self.process.wait()


def contents(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def another(folder, tmp_path):
    """The same model with other weights, so that versions can be told apart."""
    config, weights, _ = hub.load_weights(folder, build_network)
    other = {name: value + 1 if value.is_floating_point() else value for name, value in weights.items()}
    return hub.save_weights(tmp_path / "another", config, other)


def digest(folder):
    _, weights, _ = hub.load_weights(folder, build_network)
    return hashlib.sha256(b"".join(weights[name].numpy().tobytes() for name in sorted(weights))).hexdigest()
