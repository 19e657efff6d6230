"""Off by one here silently ruins every result, so every class is followed there and back."""

import torch

from ddps.void_first import labels_to_network, labels_to_users, probs_to_network, probs_to_users


def test_labels_there_and_back():
    network = torch.arange(151)
    users = labels_to_users(network)
    assert users[0] == 255 and torch.equal(users[1:], torch.arange(150)) and users.dtype == torch.int64
    assert torch.equal(labels_to_network(users), network)
    assert labels_to_users(network, -1)[0] == -1 and labels_to_network(torch.tensor([-1, 0, 149]), -1).tolist() == [
        0,
        1,
        150,
    ]


def test_probabilities_there_and_back():
    users = torch.rand(4, 3, 5).softmax(0)
    network = probs_to_network(users)
    assert network.shape == (5, 3, 5) and not network[0].any()
    torch.testing.assert_close(probs_to_users(network), users)


def test_probabilities_are_those_of_a_pixel_that_is_not_void():
    logits = torch.randn(6, 40) * 5
    torch.testing.assert_close(probs_to_users(logits.softmax(0)), logits[1:].softmax(0))
    sure_of_void = torch.zeros(6, 2)
    sure_of_void[0] = 1
    torch.testing.assert_close(probs_to_users(sure_of_void), torch.full((5, 2), 0.2))
