"""Runs a command in two processes that torchrun starts, talking through gloo on this machine."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def torchrun(*arguments: object, script: Path | None = None) -> subprocess.CompletedProcess[str]:
    """`torchrun --nproc-per-node 2 -m ddps ARGUMENTS`, or a script in the place of `-m ddps`."""
    what = ["-m", "ddps"] if script is None else [script]
    options = ["--nproc-per-node", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0"]
    command = [sys.executable, "-m", "torch.distributed.run", *options, *what, *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=300, env=environment, cwd=ROOT
    )
