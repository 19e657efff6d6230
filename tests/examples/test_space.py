"""The Space as it lies in a repository of its own: the three files and the package beside them."""

import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SPACE = ROOT / "examples" / "space"


def read_metadata() -> dict[str, str]:
    """What stands between the two lines of dashes that a Space's README begins with."""
    head, _ = (SPACE / "README.md").read_text(encoding="utf-8").removeprefix("---\n").split("\n---\n", 1)
    return dict(re.findall(r"^(\w+): \"?(.*?)\"?$", head, flags=re.MULTILINE))


def test_the_readme_has_what_a_space_needs():
    metadata = read_metadata()
    assert metadata["sdk"] == "gradio" and (SPACE / metadata["app_file"]).is_file()
    assert metadata["license"] == "apache-2.0" and len(metadata["short_description"]) <= 60
    assert int(metadata["sdk_version"].split(".")[0]) >= 6


def test_the_requirements_are_the_packages_own():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    lines = (SPACE / "requirements.txt").read_text(encoding="utf-8").splitlines()
    wanted = [line for line in lines if not line.startswith("#")]
    [core] = re.findall(r"^dependencies = \[(.*?)\]", project, flags=re.MULTILINE | re.DOTALL)
    for requirement in re.findall(r'"(.*?)"', core):
        assert requirement in wanted
    for requirement in wanted:
        assert f'"{requirement}"' in project


def test_it_serves_the_page(tmp_path):
    pytest.importorskip("gradio", reason="serves the page: pip install '.[app]'")
    pytest.importorskip("skimage", reason="the photos come with scikit-image: pip install '.[demo]'")
    shutil.copytree(SPACE, tmp_path, dirs_exist_ok=True)
    shutil.copytree(ROOT / "ddps", tmp_path / "ddps", ignore=shutil.ignore_patterns("__pycache__"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_SERVER_PORT": str(port)}
    with subprocess.Popen(
        [sys.executable, "app.py"], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            line = process.stdout.readline()
            assert line == f"ddps: the page is at http://127.0.0.1:{port}/\n"
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60) as answer:
                page = answer.read().decode()
            assert "Sharper masks from any segmentor" in page and "astronaut" in page and "3.1 megapixels" in page
        finally:
            process.terminate()
