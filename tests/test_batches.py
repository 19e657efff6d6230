import numpy as np
import pytest
import torch

from ddps.batches import feature_lists, is_batch, prediction_list
from ddps.errors import InputError


def test_what_is_a_batch():
    assert is_batch([torch.rand(3, 4, 4)]) and is_batch(torch.rand(1, 3, 4, 4)) and is_batch(())
    assert not is_batch(torch.rand(3, 4, 4)) and not is_batch("a.png") and not is_batch(np.zeros((4, 4, 3)))


def test_predictions_of_a_batch():
    assert len(prediction_list(torch.rand(2, 3, 4, 4))) == 2
    assert prediction_list(("a.npz", "b.npz")) == ["a.npz", "b.npz"]
    with pytest.raises(InputError):
        prediction_list("a.npz")


def test_features_of_a_batch():
    maps = [torch.rand(2, 4, 6, 6), torch.rand(2, 8, 3, 3)]
    split = feature_lists(maps, 2)
    assert [[tuple(f.shape) for f in one] for one in split] == [[(1, 4, 6, 6), (1, 8, 3, 3)]] * 2
    assert torch.equal(split[1][0], maps[0][1:])
    # As many maps as images, and maps of one image each: still one list per image.
    assert feature_lists(split, 2) == split
    for bad in (maps, torch.rand(2, 4, 6, 6), None, [], [maps[0], split[0]], [split[0]]):
        with pytest.raises(InputError, match="features of 3 images"):
            feature_lists(bad, 3)
