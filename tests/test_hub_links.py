"""Links and names that lead elsewhere: what is read, and what is refused."""

import os

import pytest
import torch

from ddps import DDPSRefiner, InputError, hub

FILES = ("config.json", "model.safetensors", "README.md")


@pytest.fixture
def model(tmp_path, tiny_refiner):
    return tiny_refiner.save_pretrained(tmp_path / "model")


def linked(folder, model, names=FILES):
    """A folder of links to a model's files."""
    folder.mkdir()
    for name in names:
        (folder / name).symlink_to(model / name)
    return folder


def test_a_folder_of_links_is_read(tmp_path, model, tiny_refiner):
    loaded = DDPSRefiner.from_pretrained(linked(tmp_path / "links", model), device="cpu")
    state = tiny_refiner.network.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in loaded.network.state_dict().items())


@pytest.mark.parametrize("name", FILES[:2])
@pytest.mark.parametrize("kind", ["dangling", "loop", "folder", "device", "pipe"])
def test_what_is_no_plain_file_is_refused(model, name, kind):
    path = model / name
    path.unlink()
    if kind == "pipe":
        if not hasattr(os, "mkfifo"):
            pytest.skip("a system without pipes that have names")
        os.mkfifo(path)  # read, it would never end
    else:
        path.symlink_to({"dangling": "none", "loop": name, "folder": ".", "device": "/dev/zero"}[kind])
    with pytest.raises(InputError, match="no such file") as caught:
        DDPSRefiner.from_pretrained(model, device="cpu")
    assert "\n" not in str(caught.value)


def test_another_file_behind_a_link_is_not_told(tmp_path, model):
    (tmp_path / "secret").write_text("user: hunter2\n" * 10)
    for name in FILES[:2]:
        (model / name).unlink()
        (model / name).symlink_to(tmp_path / "secret")
        with pytest.raises(InputError) as caught:
            DDPSRefiner.from_pretrained(model, device="cpu")
        assert "hunter2" not in str(caught.value) and "user" not in str(caught.value).replace(str(tmp_path), "")
        DDPSRefiner.from_pretrained("universal", device="cpu").save_pretrained(model)


@pytest.mark.parametrize("name", FILES)
def test_a_link_is_not_sent_to_the_hub(tmp_path, model, name):
    (tmp_path / "secret").write_bytes((model / name).read_bytes())
    (model / name).unlink()
    (model / name).symlink_to(tmp_path / "secret")
    with pytest.raises(InputError, match="a link to another file"):
        hub.push(model, "org/name", token="none")


def test_a_save_does_not_write_where_links_lead(tmp_path, model, tiny_refiner):
    before = {name: (model / name).read_bytes() for name in FILES}
    folder = linked(tmp_path / "links", model)
    tiny_refiner.save_pretrained(folder, "another card", half=True)
    assert {name: (model / name).read_bytes() for name in FILES} == before
    assert not any((folder / name).is_symlink() for name in FILES)
    assert (folder / "README.md").read_text() == "another card"
