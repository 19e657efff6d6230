import importlib.util

import numpy as np
import pytest
from PIL import Image

from ddps.cli import demo
from ddps.metrics import SegmentationMetrics


@pytest.fixture
def photos():
    """Skips where the photos are not installed."""
    pytest.importorskip("skimage", reason="the demo's photos come with scikit-image: pip install '.[demo]'")


@pytest.mark.parametrize("name", demo.PHOTOS)
class TestOutlines:
    def test_rough_and_fine_show_the_same_things(self, name):
        rough, fine = demo.read_mask_outlines("rough", name), demo.read_mask_outlines("fine", name)
        assert (rough.image, rough.size, rough.classes) == (fine.image, fine.size, fine.classes)
        for outlines in (rough, fine):
            drawn = {shape for shape, _ in outlines.polygons} - {"void"}
            assert drawn == set(outlines.classes[1:])

    def test_fine_ones_have_many_more_points(self, name):
        rough, fine = demo.read_mask_outlines("rough", name), demo.read_mask_outlines("fine", name)
        count = [sum(len(points) for _, points in outlines.polygons) for outlines in (rough, fine)]
        assert count[1] > 3 * count[0]

    def test_rough_ones_are_rough_but_right(self, name):
        rough, fine = demo.read_mask_outlines("rough", name), demo.read_mask_outlines("fine", name)
        metrics = SegmentationMetrics(len(fine.classes))
        metrics.update(rough.labels(), fine.labels())
        assert metrics.confusion.miou > 80 and metrics.boundary.miou < 95

    def test_nothing_lies_outside_the_photo(self, name):
        for kind in ("rough", "fine"):
            outlines = demo.read_mask_outlines(kind, name)
            for _, points in outlines.polygons:
                assert (points >= 0).all() and (points <= np.array(outlines.size)).all()

    def test_the_photo_lies_in_the_wheel(self, name, photos):
        outlines = demo.read_mask_outlines("rough", name)
        with Image.open(demo.find_photo(outlines.image)) as photo:
            assert photo.size == outlines.size


def test_pictures_and_figures(run, tmp_path, tiny_model_dir, photos):
    arguments = ("demo", "-o", tmp_path / "out", "--model", tiny_model_dir, "--device", "cpu")
    outcome = run(*arguments, "--json")
    assert outcome.code == 0 and outcome.err == ""
    assert [row["photo"] for row in outcome.json["photos"]] == list(demo.PHOTOS)
    assert sorted(path.stem for path in (tmp_path / "out").iterdir()) == sorted([*demo.PHOTOS, "demo"])
    with Image.open(tmp_path / "out" / "astronaut.png") as picture:
        assert picture.width > 4 * 480
    assert run(*arguments).is_bad_input()
    text = run(*arguments, "--overwrite")
    assert text.code == 0 and all(name in text.out for name in demo.PHOTOS)


def test_the_default_folder_is_made_anew(run, tmp_path, tiny_model_dir, photos, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "PHOTOS", ("rocket",))
    for _ in range(2):
        assert run("demo", "--model", tiny_model_dir, "--device", "cpu").code == 0
    assert (tmp_path / "ddps-demo" / "rocket.png").is_file()


def test_without_scikit_image_it_says_how_to_get_it(run, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "find_spec", lambda name: None)
    outcome = run("demo", "-o", tmp_path / "out")
    assert outcome.is_bad_input() and "ddps[demo]" in outcome.err
    assert not (tmp_path / "out").exists()


def test_a_version_without_the_photo(run, tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location(
        "skimage", tmp_path / "x.py", submodule_search_locations=[str(tmp_path)]
    )
    monkeypatch.setattr(demo, "find_spec", lambda name: spec)
    assert run("demo", "-o", tmp_path / "out").is_bad_input()
