import argparse

import pytest

from ddps.cli.refine_item import Job
from ddps.cli.refine_plan import check_inputs_stay, check_outputs_new, make_folder, plan_folders
from ddps.errors import InputError


def arguments(data_set, **changes):
    values = {"image": data_set.images, "prediction": data_set.predictions, "output": data_set.root / "out"}
    return argparse.Namespace(**{**values, "overlay": None, "format": "png", **changes})


def test_pairs_go_by_stem(data_set):
    (data_set.predictions / "b.npz").unlink()
    (data_set.predictions / "d.npz").write_bytes(b"")
    plan = plan_folders(arguments(data_set))
    assert [job.name for job in plan.jobs] == ["a", "c"] and plan.without_prediction == 1
    assert [path.name for path in plan.alone] == ["d.npz"]
    assert plan.jobs[0].outputs == (data_set.root / "out" / "a.png",)


def test_images_alone(data_set):
    plan = plan_folders(arguments(data_set, prediction=None, overlay=data_set.root / "over"))
    assert [job.name for job in plan.jobs] == ["a", "b", "c"] and plan.without_prediction == 0
    assert plan.jobs[0].outputs == (data_set.root / "out" / "a.png", data_set.root / "over" / "a.jpg")


def test_inputs_and_outputs(data_set):
    plan = plan_folders(arguments(data_set))
    check_inputs_stay(plan.jobs)
    check_outputs_new(plan.jobs, data_set.root / "out", review=True)
    with pytest.raises(InputError, match="outputs that are not inputs"):
        check_inputs_stay(plan_folders(arguments(data_set, output=data_set.images)).jobs)
    (data_set.root / "out").mkdir()
    (data_set.root / "out" / "review").mkdir()
    check_outputs_new(plan.jobs, data_set.root / "out", review=False)
    with pytest.raises(InputError, match="1 that do, such as .*review"):
        check_outputs_new(plan.jobs, data_set.root / "out", review=True)


def test_a_link_to_an_output_is_an_input_that_would_go(data_set):
    out = data_set.root / "out"
    out.mkdir()
    data_set.predictions.joinpath("a.npz").rename(out / "a.npz")
    data_set.predictions.joinpath("a.npz").symlink_to(out / "a.npz")
    linked = data_set.root / "linked"
    linked.symlink_to(out)
    for output in (out, linked):
        with pytest.raises(InputError, match=r"outputs that are not inputs; got .*a\.npz"):
            check_inputs_stay(plan_folders(arguments(data_set, output=output, format="npz")).jobs)
    check_inputs_stay(plan_folders(arguments(data_set, output=out, format="png")).jobs)


def test_one_output_for_two(data_set):
    job = Job(data_set.images / "a.png", None, data_set.root / "a.png", data_set.root / "a.png")
    with pytest.raises(InputError, match="one place for every output"):
        check_inputs_stay([job])


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="folder that can be made"):
        make_folder(tmp_path / "file" / "out")
