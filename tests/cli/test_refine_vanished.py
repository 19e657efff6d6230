"""Files and folders that somebody takes away while `ddps refine` works on them."""

import shutil

import pytest

from ddps.cli import refine_folder


@pytest.fixture
def after(monkeypatch):
    """Does something once so many items have been saved."""

    def when(count, act):
        saved, real = [], refine_folder.save

        def save(*arguments):
            real(*arguments)
            saved.append(1)
            if len(saved) == count:
                act()

        monkeypatch.setattr(refine_folder, "save", save)

    return when


def masks_of(folder):
    return sorted(path.name for path in folder.glob("*.png"))


@pytest.mark.parametrize("part", ["images", "predictions"])
def test_an_input_that_goes_away_is_one_failed_item(refine, data_set, tmp_path, monkeypatch, part):
    gone = data_set.images / "b.png" if part == "images" else data_set.predictions / "b.npz"
    kept, real = gone.read_bytes(), refine_folder.load

    def load(job, *arguments, **keywords):
        if job.name == "b":
            gone.unlink()
        return real(job, *arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(refine_folder, "load", load)
        outcome = refine(data_set.images, data_set.predictions, "-o", tmp_path / "out", "--json")
    assert outcome.code == 1 and outcome.err.count("\n") == 1 and gone.name in outcome.err
    assert masks_of(tmp_path / "out") == ["a.png", "c.png"]
    assert [item["name"] for item in outcome.json["failed"]] == ["b"]
    gone.write_bytes(kept)
    report = refine(data_set.images, data_set.predictions, "-o", tmp_path / "out", "--resume", "--json").json
    assert report["refined"] == 1 and report["skipped"] == 2 and report["failed"] == []


def test_an_output_folder_that_goes_away_ends_the_run(refine, data_set, tmp_path, after):
    out = tmp_path / "out"
    after(1, lambda: shutil.rmtree(out))
    outcome = refine(data_set.images, data_set.predictions, "-o", out, "--workers", 1)
    assert outcome.code == 1 and outcome.err.count("\n") == 1
    assert "its folder is gone" in outcome.err and not out.exists()


def test_what_a_killed_run_left_is_removed(refine, data_set, tmp_path):
    out, over = tmp_path / "out", tmp_path / "over"
    arguments = (data_set.images, data_set.predictions, "-o", out, "--overlay", over, "--review", 0)
    assert refine(*arguments).code == 0
    left = [folder / ".a.png.0123456789ab.tmp" for folder in (out, over, out / "review")]
    for path in left:
        path.write_bytes(b"half")
    others = out / ".hidden.tmp"
    others.write_bytes(b"precious")
    assert refine(*arguments, "--resume").code == 0
    assert not any(path.exists() for path in left) and others.exists()
