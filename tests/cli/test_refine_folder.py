"""`ddps refine` over a folder: pairs, failures, resuming, and what is left when it is stopped."""

import errno
import json
import os

import numpy as np
import pytest
from PIL import Image

from ddps import DDPSRefiner
from ddps.cli import refine_folder, refine_item


def masks_of(folder):
    """What was written, without the summary."""
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("summary."))


def rows_of(folder):
    return [json.loads(line) for line in (folder / "summary.jsonl").read_text().splitlines()]


@pytest.fixture
def both(data_set):
    return data_set.images, data_set.predictions


@pytest.fixture
def labelled(data_set):
    """The images with label maps instead of logits."""
    return data_set.images, data_set.masks


class TestItems:
    def test_pairs_go_by_stem(self, refine, data_set, tmp_path):
        (data_set.predictions / "b.npz").unlink()
        (data_set.images / ".hidden.png").write_bytes(b"")
        out = tmp_path / "new" / "out"
        outcome = refine(data_set.images, data_set.predictions, "-o", out, "--json")
        assert outcome.code == 0 and masks_of(out) == ["a.png", "c.png"]
        assert outcome.json["refined"] == 2 and outcome.json["without_prediction"] == 1

    def test_a_folder_equals_its_pairs(self, refine, data_set, tmp_path):
        assert refine(data_set.images, data_set.predictions, "-o", tmp_path / "out").code == 0
        pair = (data_set.images / "a.png", data_set.predictions / "a.npz")
        assert refine(*pair, "-o", tmp_path / "one.png").code == 0
        assert (tmp_path / "one.png").read_bytes() == (tmp_path / "out" / "a.png").read_bytes()

    def test_format_and_overlays(self, refine, data_set, tmp_path):
        arguments = ("-o", tmp_path / "out", "--format", "npz", "--overlay", tmp_path / "over")
        assert refine(data_set.images, data_set.predictions, *arguments).code == 0
        assert masks_of(tmp_path / "out") == ["a.npz", "b.npz", "c.npz"]
        assert masks_of(tmp_path / "over") == ["a.jpg", "b.jpg", "c.jpg"]

    def test_resume_does_the_missing_ones_only(self, refine, data_set, tmp_path):
        out = tmp_path / "out"
        arguments = (data_set.images, data_set.predictions, "-o", out)
        assert refine(*arguments).code == 0
        whole = (out / "b.png").read_bytes()
        (out / "b.png").unlink()
        for name in ("a.png", "c.png"):
            os.utime(out / name, (1, 1))
        assert refine(*arguments).is_bad_input()
        assert masks_of(out) == ["a.png", "c.png"]
        report = refine(*arguments, "--resume", "--json").json
        assert report["refined"] == 1 and report["skipped"] == 2
        assert (out / "b.png").read_bytes() == whole
        assert (out / "a.png").stat().st_mtime == 1 == (out / "c.png").stat().st_mtime
        assert refine(*arguments, "--overwrite").code == 0
        assert (out / "a.png").stat().st_mtime > 1

    def test_resume_with_nothing_left_needs_no_model(self, refine, data_set, tmp_path):
        arguments = (data_set.images, data_set.predictions, "-o", tmp_path / "out")
        assert refine(*arguments).code == 0
        outcome = refine(*arguments, "--resume", "--json", model="no-such-model")
        assert outcome.code == 0 and outcome.json["skipped"] == 3 and outcome.json["changed"] > 0

    def test_resume_completes_an_item_whose_overlay_is_missing(self, refine, data_set, tmp_path):
        arguments = (data_set.images, data_set.predictions, "-o", tmp_path / "out")
        assert refine(*arguments).code == 0
        assert refine(*arguments, "--resume", "--overlay", tmp_path / "over").code == 0
        assert masks_of(tmp_path / "over") == ["a.jpg", "b.jpg", "c.jpg"]

    def test_a_corrupt_item_is_reported_and_skipped(self, refine, data_set, tmp_path):
        (data_set.images / "a.png").write_bytes((data_set.images / "a.png").read_bytes()[:100])
        (data_set.predictions / "c.npz").write_bytes(b"PK\x03\x04 no zip")
        outcome = refine(data_set.images, data_set.predictions, "-o", tmp_path / "out", "--json")
        assert outcome.code == 1 and masks_of(tmp_path / "out") == ["b.png"]
        assert [item["name"] for item in outcome.json["failed"]] == ["a", "c"]
        lines = outcome.err.splitlines()
        assert len(lines) == 2 and lines[0].startswith("ddps: error: expected a.npz: ") and "c.npz" in lines[1]

    def test_a_prediction_without_an_image_fails_and_the_rest_goes_on(self, refine, data_set, tmp_path):
        (data_set.images / "b.png").unlink()
        outcome = refine(data_set.images, data_set.predictions, "-o", tmp_path / "out", "--json")
        assert outcome.code == 1 and masks_of(tmp_path / "out") == ["a.png", "c.png"]
        assert outcome.err.count("\n") == 1 and "b.npz" in outcome.err and "; try " in outcome.err
        assert [item["name"] for item in outcome.json["failed"]] == ["b"]

    def test_no_prediction_with_an_image(self, refine, data_set, tmp_path):
        for stem in "abc":
            (data_set.images / f"{stem}.png").rename(data_set.images / f"{stem}2.png")
        assert refine(data_set.images, data_set.predictions, "-o", tmp_path / "out").is_bad_input()
        assert not (tmp_path / "out").exists()

    def test_two_files_of_one_stem(self, refine, data_set, tmp_path):
        np.save(data_set.predictions / "b.npy", np.zeros((3, 4, 4)))
        assert refine(data_set.images, data_set.predictions, "-o", tmp_path / "out").is_bad_input()

    def test_inputs_are_never_written_over(self, refine, data_set):
        for stem in "abc":
            (data_set.predictions / f"{stem}.npz").unlink()
        for folder in (data_set.images, data_set.masks):
            outcome = refine(data_set.images, data_set.masks, "-o", folder, "--overwrite")
            assert outcome.is_bad_input() and "input" in outcome.err

    def test_a_file_and_a_folder(self, refine, data_set, tmp_path):
        assert refine(data_set.images, data_set.predictions / "a.npz", "-o", tmp_path / "out").is_bad_input()
        assert refine(data_set.images / "a.png", data_set.predictions, "-o", tmp_path / "out").is_bad_input()
        (tmp_path / "file").write_bytes(b"")
        assert refine(data_set.images, data_set.predictions, "-o", tmp_path / "file").is_bad_input()

    def test_a_bad_model_leaves_no_folder_behind(self, refine, data_set, tmp_path):
        assert refine(data_set.images, data_set.predictions, "-o", tmp_path / "out", model="none").is_bad_input()
        assert not (tmp_path / "out").exists()

    def test_folders_with_nothing_in_them(self, refine, data_set, tmp_path):
        (tmp_path / "empty").mkdir()
        assert refine(data_set.images, tmp_path / "empty", "-o", tmp_path / "out").is_bad_input()
        assert refine(data_set.images, tmp_path / "none", "-o", tmp_path / "out").is_bad_input()

    def test_a_label_map_of_another_shape(self, refine, data_set, labelled, tmp_path):
        with Image.open(data_set.masks / "b.png") as mask:
            labels = np.array(mask)
        Image.fromarray(labels.T.copy()).save(data_set.masks / "b.png")
        Image.fromarray(labels[2::4, 2::4].copy()).save(data_set.masks / "c.png")
        outcome = refine(*labelled, "-o", tmp_path / "out", "--json")
        assert outcome.code == 1 and masks_of(tmp_path / "out") == ["a.png", "c.png"]
        assert "b.png" in outcome.err and "40 x 56" in outcome.err and "56 x 40" in outcome.err
        assert outcome.json["resized"] == 1

    def test_more_ids_than_classes(self, refine, data_set, labelled, tmp_path):
        with Image.open(data_set.masks / "b.png") as mask:
            labels = np.array(mask)
        labels[0, 0] = 17
        Image.fromarray(labels).save(data_set.masks / "b.png")
        (tmp_path / "classes.json").write_text('{"num_classes": 3}')
        outcome = refine(*labelled, "-o", tmp_path / "out", "--classes", tmp_path / "classes.json", "--json")
        assert outcome.code == 1 and masks_of(tmp_path / "out") == ["a.png", "c.png"]
        assert outcome.err.count("\n") == 1 and "class ids 0 to 2" in outcome.err and "ids 17" in outcome.err

    def test_classes_that_the_weights_do_not_have(self, refine, labelled, tmp_path, tiny_model_of_5_dir):
        (tmp_path / "classes.json").write_text('{"num_classes": 3}')
        arguments = ("-o", tmp_path / "out", "--classes", tmp_path / "classes.json")
        outcome = refine(*labelled, *arguments, model=tiny_model_of_5_dir)
        assert outcome.is_bad_input() and "--classes with 5" in outcome.err and not (tmp_path / "out").exists()

    def test_weights_of_given_classes_take_label_maps(self, refine, labelled, data_set, tmp_path, tiny_model_of_5_dir):
        assert refine(*labelled, "-o", tmp_path / "out", model=tiny_model_of_5_dir).code == 0
        refiner = DDPSRefiner.from_pretrained(tiny_model_of_5_dir, device="cpu")
        expected = refiner.refine(data_set.images / "a.png", data_set.masks / "a.png").labels
        with Image.open(tmp_path / "out" / "a.png") as mask:
            np.testing.assert_array_equal(np.array(mask), expected)

    def test_an_item_that_is_all_void_stays(self, refine, data_set, labelled, tmp_path):
        Image.fromarray(np.full((40, 56), 255, dtype=np.uint8)).save(data_set.masks / "b.png")
        outcome = refine(*labelled, "-o", tmp_path / "out", "--json")
        assert outcome.code == 0
        with Image.open(tmp_path / "out" / "b.png") as mask:
            assert (np.array(mask) == 255).all()
        assert {row["name"]: row["changed"] for row in rows_of(tmp_path / "out")}["b"] is None

    def test_zero_and_255_is_doubted_until_void_is_given(self, refine, data_set, labelled, tmp_path):
        labels = np.zeros((40, 56), dtype=np.uint8)
        labels[:9] = 255
        Image.fromarray(labels).save(data_set.masks / "b.png")
        assert refine(*labelled, "-o", tmp_path / "one").code == 1
        assert refine(*labelled, "-o", tmp_path / "two", "--ignore-index", 255).code == 0
        with Image.open(tmp_path / "two" / "b.png") as mask:
            np.testing.assert_array_equal(np.array(mask), labels)

    def test_a_name_that_is_no_text(self, refine, data_set, both, tmp_path):
        name = os.fsdecode(b"\xff\xfe")
        try:
            (data_set.images / "b.png").rename(data_set.images / f"{name}.png")
        except OSError:
            pytest.skip("a file system that takes text only")
        (data_set.predictions / "b.npz").rename(data_set.predictions / f"{name}.npz")
        (data_set.images / "c.png").write_bytes(b"")
        outcome = refine(*both, "-o", tmp_path / "out", "--review", 0, "--json")
        assert outcome.code == 1 and outcome.json["refined"] == 2
        assert (tmp_path / "out" / f"{name}.png").is_file()


class TestLabelMaps:
    def test_the_answer_is_the_librarys(self, refine, data_set, labelled, tmp_path, tiny_model_dir):
        assert refine(*labelled, "-o", tmp_path / "out").code == 0
        refiner = DDPSRefiner.from_pretrained(tiny_model_dir, device="cpu")
        expected = refiner.refine(data_set.images / "a.png", data_set.masks / "a.png")
        assert expected.changed.any()
        with Image.open(tmp_path / "out" / "a.png") as mask:
            assert mask.mode == "L"
            np.testing.assert_array_equal(np.array(mask), expected.labels)

    def test_other_ids_change_nothing_but_the_ids(self, refine, data_set, labelled, tmp_path):
        ids = np.array([4, 9, 200], dtype=np.uint8)
        assert refine(*labelled, "-o", tmp_path / "plain").code == 0
        for path in data_set.masks.iterdir():
            with Image.open(path) as mask:
                labels = ids[np.array(mask)]
            Image.fromarray(labels).save(path)
        assert refine(*labelled, "-o", tmp_path / "other").code == 0
        for name in masks_of(tmp_path / "plain"):
            with Image.open(tmp_path / "plain" / name) as plain, Image.open(tmp_path / "other" / name) as other:
                np.testing.assert_array_equal(np.array(other), ids[np.array(plain)])


class TestWorkers:
    def test_their_number_changes_no_bit(self, refine, both, tmp_path):
        for workers in (1, 5):
            out = tmp_path / str(workers)
            assert refine(*both, "-o", out, "--workers", workers, "--overlay", tmp_path / f"over{workers}").code == 0
        for name in "abc":
            assert (tmp_path / "1" / f"{name}.png").read_bytes() == (tmp_path / "5" / f"{name}.png").read_bytes()
            one, five = (sorted(rows_of(tmp_path / w), key=lambda row: row["name"]) for w in ("1", "5"))
            assert [row["changed"] for row in one] == [row["changed"] for row in five]


class TestSummary:
    def test_a_row_for_every_item(self, refine, both, data_set, tmp_path, tiny_model_dir):
        report = refine(*both, "-o", tmp_path / "out", "--json").json
        assert json.loads((tmp_path / "out" / "summary.json").read_text()) == report
        row = next(row for row in rows_of(tmp_path / "out") if row["name"] == "a")
        refiner = DDPSRefiner.from_pretrained(tiny_model_dir, device="cpu")
        expected = refiner.refine(data_set.images / "a.png", data_set.predictions / "a.npz")
        assert row["changed"] == pytest.approx(100 * expected.changed.mean())
        assert row["uncertainty"] == pytest.approx(100 * expected.uncertainty.mean(), rel=1e-5)

    def test_a_resumed_run_counts_what_was_done_before(self, refine, both, tmp_path):
        out = tmp_path / "out"
        whole = refine(*both, "-o", out, "--json").json
        (out / "b.png").unlink()
        again = refine(*both, "-o", out, "--resume", "--json").json
        assert again["refined"] == 1 and again["skipped"] == 2 and again["without_row"] == 0
        assert again["changed"] == whole["changed"] and again["uncertainty"] == whole["uncertainty"]

    def test_masks_without_a_row_are_told(self, refine, both, tmp_path):
        out = tmp_path / "out"
        assert refine(*both, "-o", out).code == 0
        (out / "summary.jsonl").write_text("")
        report = refine(*both, "-o", out, "--resume", "--json").json
        assert report["skipped"] == 3 and report["without_row"] == 3 and report["changed"] is None

    def test_a_cut_output_is_done_again(self, refine, both, tmp_path):
        out = tmp_path / "out"
        assert refine(*both, "-o", out, "--overlay", tmp_path / "over").code == 0
        whole = (out / "b.png").read_bytes()
        (out / "b.png").write_bytes(whole[:-20])
        (tmp_path / "over" / "c.jpg").write_bytes(b"")
        report = refine(*both, "-o", out, "--overlay", tmp_path / "over", "--resume", "--json").json
        assert report["refined"] == 2 and (out / "b.png").read_bytes() == whole

    def test_a_summary_that_exists_is_kept(self, refine, both, tmp_path):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "summary.json").write_text("precious")
        assert refine(*both, "-o", tmp_path / "out").is_bad_input()
        assert (tmp_path / "out" / "summary.json").read_text() == "precious"

    def test_rows_that_are_not_ours_are_kept(self, refine, both, tmp_path):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "summary.jsonl").write_text("precious\n")
        assert refine(*both, "-o", tmp_path / "out", "--resume").is_bad_input()
        assert (tmp_path / "out" / "summary.jsonl").read_text() == "precious\n"

    def test_where_everything_failed_nothing_is_left(self, refine, data_set, both, tmp_path):
        for stem in "abc":
            (data_set.predictions / f"{stem}.npz").write_bytes(b"no zip")
        assert refine(*both, "-o", tmp_path / "out").code == 1
        assert list((tmp_path / "out").iterdir()) == []


class TestStops:
    def test_a_full_disk_says_one_line(self, refine, both, tmp_path, full_disk):
        full_disk(after=1)
        outcome = refine(*both, "-o", tmp_path / "out", "--workers", 1, "--json")
        assert outcome.code == 1 and outcome.err.count("\n") == 1
        assert "No space left" in outcome.err and "--resume" in outcome.err
        assert masks_of(tmp_path / "out") == ["a.png"] and outcome.json["refined"] == 1
        assert not (tmp_path / "out" / "summary.json").exists()

    def test_then_it_can_be_resumed(self, refine, both, tmp_path, full_disk):
        full_disk(after=1)
        refine(*both, "-o", tmp_path / "out", "--workers", 1)
        full_disk(after=100)
        report = refine(*both, "-o", tmp_path / "out", "--resume", "--json").json
        assert report["refined"] == 2 and report["skipped"] == 1 and report["without_row"] == 0
        assert report["stopped"] is None

    def test_a_disk_that_takes_nothing(self, refine, both, tmp_path, full_disk):
        full_disk(after=0)
        outcome = refine(*both, "-o", tmp_path / "out")
        assert outcome.code == 2 and outcome.err.count("\n") == 1 and masks_of(tmp_path / "out") == []

    def test_a_folder_that_cannot_be_written_to(self, refine, both, tmp_path, monkeypatch):
        def refuse(path):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

        monkeypatch.setattr(refine_folder, "RowFile", refuse)
        outcome = refine(*both, "-o", tmp_path / "out")
        assert outcome.is_bad_input() and "Read-only" in outcome.err

    def test_an_interruption_leaves_whole_files(self, refine, both, tmp_path, monkeypatch):
        calls, real = [], refine_folder.refine

        def interrupt(*arguments, **keywords):
            calls.append(1)
            if len(calls) == 3:
                raise KeyboardInterrupt
            return real(*arguments, **keywords)

        monkeypatch.setattr(refine_folder, "refine", interrupt)
        outcome = refine(*both, "-o", tmp_path / "out")
        assert outcome.code == 130 and "interrupted" in outcome.err
        names = [path.name for path in (tmp_path / "out").iterdir()]
        assert not [name for name in names if name.endswith(".tmp")]
        monkeypatch.setattr(refine_folder, "refine", real)
        report = refine(*both, "-o", tmp_path / "out", "--resume", "--json").json
        assert report["without_row"] == 0 and masks_of(tmp_path / "out") == ["a.png", "b.png", "c.png"]

    def test_a_kill_between_row_and_mask_loses_that_item_only(self, refine, both, tmp_path, monkeypatch):
        class Killed(BaseException):
            pass

        def kill(job, *_):
            if job.name == "b":
                raise Killed
            real(job, *_)

        real = refine_item.save
        monkeypatch.setattr(refine_folder, "save", kill)
        with pytest.raises(Killed):
            refine(*both, "-o", tmp_path / "out", "--workers", 1)
        assert "a.png" in masks_of(tmp_path / "out") and "b.png" not in masks_of(tmp_path / "out")
        monkeypatch.setattr(refine_folder, "save", real)
        report = refine(*both, "-o", tmp_path / "out", "--resume", "--json").json
        assert report["without_row"] == 0 and report["refined"] + report["skipped"] == 3
