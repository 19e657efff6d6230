import torch

import ddps


def test_without_a_model(run):
    report = run("info", "--json").json
    assert report["ddps"] == ddps.__version__ and report["torch"] == torch.__version__
    assert report["devices"][0] == "cpu"


def test_a_models_facts(run, tiny_model_dir, tiny_refiner):
    model = run("info", tiny_model_dir, "--json").json["model"]
    assert model["parameters"] == sum(p.numel() for p in tiny_refiner.network.parameters())
    assert model["card"] == str(tiny_model_dir / "README.md")
    assert model["config"]["name"] == "tiny" and model["folder"] == str(tiny_model_dir)


def test_the_text_says_where_the_card_is(run, tiny_model_dir):
    outcome = run("info", tiny_model_dir)
    assert outcome.code == 0 and str(tiny_model_dir / "README.md") in outcome.out and outcome.err == ""


def test_damaged_weights_are_refused(run, tmp_path, tiny_model_dir):
    (tmp_path / "config.json").write_text((tiny_model_dir / "config.json").read_text())
    (tmp_path / "model.safetensors").write_bytes(b"\x00" * 100)
    assert run("info", tmp_path).is_bad_input()
    assert run("info", tmp_path / "none").is_bad_input()
