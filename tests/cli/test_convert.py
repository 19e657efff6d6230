import torch

from ddps import DDPSRefiner

from ..whole_models import whole_refiner, write_checkpoint


def test_a_checkpoint_becomes_a_folder(run, tmp_path):
    path = write_checkpoint(tmp_path / "model.pth", whole_refiner())
    outcome = run("convert", path, "-o", tmp_path / "a", "--json")
    assert outcome.code == 0 and outcome.json == {
        "folder": str(tmp_path / "a"),
        "weights": "ema",
        "parameters": sum(p.numel() for p in whole_refiner().network.parameters()),
        "backbone": "MiT",
        "num_classes": 5,
        "void_first": False,
    }
    text = run("convert", path, "-o", tmp_path / "b", "--weights", "raw", "--void", "first")
    assert text.code == 0 and "(raw), 4 classes, void counted first" in text.out
    a, b = (DDPSRefiner.from_pretrained(tmp_path / name, device="cpu").network for name in "ab")
    assert not torch.equal(a.embed.weight, b.embed.weight)
    assert run("convert", path, "-o", tmp_path / "a").is_bad_input()
    assert run("convert", path, "-o", tmp_path / "a", "--overwrite").code == 0
    assert "encoder:    MiT" in run("info", tmp_path / "a").out


def test_bad_files_leave_one_line_and_nothing_else(run, tmp_path):
    cut = write_checkpoint(tmp_path / "cut.pth", whole_refiner())
    cut.write_bytes(cut.read_bytes()[:5000])
    (tmp_path / "stub.pth").write_text("not here, sorry")
    for path in (cut, tmp_path / "stub.pth", tmp_path / "none.pth", tmp_path):
        outcome = run("convert", path, "-o", tmp_path / "new")
        assert outcome.is_bad_input(), outcome
        assert not (tmp_path / "new").exists()
