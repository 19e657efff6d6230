"""What a stranger's model folder can cost before it is refused, measured in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .hostile_models import HOSTILE

MOST_MIB = 50


@pytest.fixture(scope="module")
def refusals(tmp_path_factory):
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("peak memory is read Linux's way")
    script = Path(__file__).with_name("hostile_models.py")
    command = [sys.executable, str(script), str(tmp_path_factory.mktemp("hostile"))]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    for row in rows:
        print(f"{row['ms']:7.1f} ms {row['MiB']:6.1f} MiB  {row['name']}: {row['said'][:150]}")
    return {row["name"]: row for row in rows}


@pytest.mark.parametrize("name", HOSTILE)
def test_it_is_refused_in_one_line_and_little_memory(refusals, name):
    row = refusals[name]
    assert row["said"].startswith("expected ") and "; got " in row["said"] and "; try " in row["said"]
    assert "\n" not in row["said"] and len(row["said"]) < 1000
    assert row["MiB"] < MOST_MIB
