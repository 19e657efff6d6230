"""Evidence about classes by name: identity when untrained, odd sizes, and what slots make of it."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from ddps.config import LogitsNetwork
from ddps.models.class_evidence import ClassEvidence, evidence_of_slots
from ddps.models.fold import folded
from ddps.models.slot_unet import SlotUNet

AGNOSTIC = LogitsNetwork(image_widths=(8, 8, 12, 12), slot_widths=(4, 4, 6, 6))
CLASSES = 5
NAMED = LogitsNetwork(image_widths=(8, 8, 12, 12), slot_widths=(4, 4, 6, 6), classes=CLASSES)


def inputs(slots: int = 3, height: int = 32, width: int = 48):
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 3, height, width, generator=generator)
    probs = torch.randn(2, slots, height, width, generator=generator).softmax(1)
    mask = torch.randint(slots, (2, height // 2, width // 2), generator=generator)
    return image, probs, mask


def noisy(config: LogitsNetwork) -> SlotUNet:
    torch.manual_seed(0)
    network = SlotUNet(config).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.add_(0.15 * torch.randn_like(parameter))
    return network


@pytest.mark.parametrize("levels", [2, 4])
def test_untrained_it_says_what_the_segmentor_says(levels):
    widths = (8, 8, 12, 12)[:levels]
    torch.manual_seed(0)
    evidence = ClassEvidence(CLASSES, widths).eval()
    features = [torch.randn(2, w, 32 >> level, 48 >> level) for level, w in enumerate(widths)]
    _, probs, _ = inputs(height=64, width=96)
    classes = torch.tensor([[4, 0, 2], [1, 3, CLASSES]])
    logits = evidence(features, probs, classes)
    assert logits.shape == (2, CLASSES, 16, 24)
    coarse = F.avg_pool2d(probs, 4)
    torch.testing.assert_close(logits.exp()[0, [4, 0, 2]], coarse[0])
    torch.testing.assert_close(logits.exp()[1, [1, 3]], coarse[1, :2])
    assert (logits[0, [1, 3]] == logits.min()).all()


def test_odd_numbers_of_deep_cells():
    network = noisy(NAMED)
    image, probs, _ = inputs(height=48, width=80)
    known = network.condition(image, probs, classes=torch.tensor([[0, 1, 2]] * 2)).known
    assert known is not None and known.logits.shape == (2, CLASSES, 12, 20) and known.logits.isfinite().all()


def test_evidence_of_slots_sums_to_1_and_other_holds_the_rest():
    logits = torch.randn(1, CLASSES, 4, 4)
    slots = evidence_of_slots(logits, torch.tensor([[3, 1, CLASSES]])).exp()
    assert slots.shape == (1, 3, 8, 8)
    probs = logits.softmax(1)
    whole = evidence_of_slots(logits, torch.arange(CLASSES)[None]).exp()
    torch.testing.assert_close(F.avg_pool2d(slots[:, :2], 2), F.avg_pool2d(whole[:, [3, 1]], 2))
    # a cell's own value is seen where all its neighbours say the same
    even = torch.full((1, CLASSES, 4, 4), 0.0) + torch.randn(1, CLASSES, 1, 1)
    slots, probs = evidence_of_slots(even, torch.tensor([[3, 1, CLASSES]])).exp(), even.softmax(1)
    torch.testing.assert_close(slots[:, 2, ::2, ::2], probs[:, [0, 2, 4]].sum(1))
    torch.testing.assert_close(slots.sum(1), torch.ones(1, 8, 8))


def test_it_starts_as_the_class_agnostic_network():
    agnostic = noisy(AGNOSTIC)
    torch.manual_seed(1)
    named = SlotUNet(NAMED).eval()
    missing, unexpected = named.load_state_dict(agnostic.state_dict(), strict=False)
    assert unexpected == [] and {name.split(".")[0] for name in missing} == {"classes", "identity", "inform", "lean"}
    image, probs, mask = inputs()
    expected = agnostic(mask, 3, agnostic.condition(image, probs))
    with torch.no_grad():
        answer = named(mask, 3, named.condition(image, probs, classes=torch.tensor([[0, 1, 2]] * 2)))
    torch.testing.assert_close(answer, expected, rtol=0, atol=1e-5)


def test_names_make_a_difference_and_the_order_of_slots_none():
    network = noisy(NAMED)
    image, probs, mask = inputs()
    classes = torch.tensor([[4, 0, 2]] * 2)
    answer = network(mask, 3, network.condition(image, probs, classes=classes))
    order = torch.tensor([2, 0, 1])
    moved = network(order.argsort()[mask], 3, network.condition(image, probs[:, order], classes=classes[:, order]))
    torch.testing.assert_close(moved, answer[:, order], rtol=0, atol=2e-3)
    other = network(mask, 3, network.condition(image, probs, classes=torch.tensor([[1, 0, 2]] * 2)))
    assert (other - answer).abs().max() > 1e-2


def test_padding_does_not_matter():
    network = noisy(NAMED)
    image, probs, mask = inputs()
    classes = torch.tensor([[4, 0, 2]] * 2)
    answer = network(mask, 3, network.condition(image, probs, classes=classes))
    valid = torch.tensor([[True, True, True, False]] * 2)
    padded = network.condition(image, F.pad(probs, (0, 0, 0, 0, 0, 1)), valid, F.pad(classes, (0, 1), value=CLASSES))
    torch.testing.assert_close(network(mask, 3, padded)[:, :3], answer, rtol=0, atol=2e-3)


def test_folded_it_says_the_same():
    network = noisy(NAMED)
    image, probs, mask = inputs()
    classes = torch.tensor([[4, 0, CLASSES]] * 2)
    fast = folded(network)
    answers = [n(mask, 3, n.condition(image, probs, classes=classes)) for n in (network, fast)]
    torch.testing.assert_close(answers[1], answers[0], rtol=0, atol=1e-3)


def test_all_of_it_learns():
    torch.manual_seed(0)
    network = SlotUNet(NAMED)
    image, probs, mask = inputs()
    condition = network.condition(image, probs, classes=torch.tensor([[4, 0, 2]] * 2))
    (network(mask, 3, condition).square().mean() + condition.known.logits.square().mean()).backward()
    without = [name for name, p in network.named_parameters() if p.grad is None]
    assert without == [] and network.lean.weight.grad.abs().sum() > 0


def test_widths_grow_with_the_images(monkeypatch):
    widths = [m[0].out_channels for m in ClassEvidence(3, (24, 40, 64, 96)).down]
    assert all(a <= b for a, b in pairwise(widths)) and all(w % 8 == 0 for w in widths)
