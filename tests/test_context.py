"""The coarse first pass: what it says about a tile, in that tile's slots, and that tiles agree by it."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from ddps.config import DDPSConfig, InferenceConfig, LogitsNetwork
from ddps.context import MOST, Context, coarseness
from ddps.diffusion.schedules import make_schedule
from ddps.models.slot_unet import SlotUNet
from ddps.predictions import load_prediction
from ddps.refiner import DDPSRefiner
from ddps.settings import Settings
from ddps.slots import slots_of
from ddps.tile_chain import TileChain
from ddps.tiling import Tile, plan_tiles

CONFIG = DDPSConfig(
    network=LogitsNetwork(image_widths=(8, 8, 8), slot_widths=(8, 8, 8), max_slots=4),
    inference=InferenceConfig(steps=2, working_size=540),
)


def settings_of(**changes):
    asked = {
        "steps": None,
        "sampler": None,
        "seed": 0,
        "num_samples": 1,
        "guidance_scale": 0.0,
        "tile": 128,
        "return_trajectory": False,
        "callback": None,
    }
    return Settings.over(CONFIG.inference, 20, **{**asked, **changes})


def context_over(pixels, known, factor, **changes):
    torch.manual_seed(0)
    network = SlotUNet(CONFIG.network).eval().requires_grad_(False)
    chain = TileChain(network, make_schedule("linear", 20), CONFIG.schedule, settings_of(**changes), torch.float32)
    return Context(pixels, known, factor, chain)


def smooth(classes, height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(1, classes, 5, 6, generator=generator) * 4
    return F.interpolate(noise, (height, width), mode="bicubic", align_corners=False)[0]


@pytest.mark.parametrize(
    ("size", "factor"), [((360, 480), 1), ((539, 4000), 1), ((540, 900), 2), ((1035, 1504), 3), ((20000, 20000), MOST)]
)
def test_only_large_images_are_seen_coarsely_first(size, factor):
    assert coarseness(size, settings_of()) == factor


@pytest.mark.parametrize("changes", [{"steps": 1}, {"sampler": "single"}, {"preset": "fast"}])
def test_a_single_pass_is_over_the_image_itself(changes):
    assert coarseness((2000, 2000), settings_of(**changes)) == 1


@pytest.mark.parametrize(("height", "width"), [(300, 420), (301, 419)])
@pytest.mark.parametrize("factor", [2, 3])
def test_an_untrained_network_says_of_a_tile_what_the_segmentor_does(height, width, factor):
    known = load_prediction(smooth(3, height, width), (height, width))
    context = context_over(torch.rand(3, height, width), known, factor)
    for tile in plan_tiles(known.size, 128, 32):
        plan, slots = slots_of(known.window(tile.top, tile.left, tile.height, tile.width), 4)
        (seen,) = context.first_pass(tile, plan, slots)
        assert seen.shape == (plan.slots, -(-tile.height // 2), -(-tile.width // 2))
        wanted = F.avg_pool2d(slots, 2, ceil_mode=True)
        assert (seen.exp() - wanted).abs().mean() < 0.02
    assert len(context._seen) <= context._columns + 1


def test_a_class_without_a_slot_in_the_window_has_its_share_of_the_rest():
    # six classes, three slots and "other" in the window; the tile shows two of those left out
    probs = torch.full((6, 300, 420), 0.01)
    for k in range(4):
        probs[k, :, 105 * k : 105 * (k + 1)] = 1
    probs[4, :60, :60], probs[5, 60:100, :60] = 3, 3
    probs /= probs.sum(0)
    known = load_prediction(probs, (300, 420))
    context = context_over(torch.rand(3, 300, 420), known, 3, tile=192)
    tile = Tile(0, 0, 96, 64)
    plan, slots = slots_of(known.window(0, 0, 96, 64), 4)
    assert {4, 5} <= set(plan.classes.tolist())
    (seen,) = context.first_pass(tile, plan, slots)
    wanted = F.avg_pool2d(slots, 2)
    inside = (slice(None), slice(4, 24), slice(4, 24))
    torch.testing.assert_close(seen.exp()[inside], wanted[inside], rtol=0, atol=0.05)


def test_every_pixel_of_the_coarse_image_is_the_mean_of_those_it_stands_for():
    pixels = torch.rand(3, 305, 421)
    known = load_prediction(smooth(2, 305, 421), (305, 421))
    context = context_over(pixels, known, 3)
    whole = F.avg_pool2d(pixels, 3, ceil_mode=True)
    for tile in context.tiles:
        rows, columns = tile.slices_in(Tile(0, 0, *known.coarse(3).size))
        torch.testing.assert_close(context._image(tile), whole[:, rows, columns])


@pytest.mark.parametrize("factor", [2, 3])
@pytest.mark.parametrize(("native", "size"), [((90, 120), (720, 960)), ((361, 481), (361, 481)), ((5, 7), (400, 500))])
def test_the_coarse_prediction_is_the_prediction(native, size, factor):
    known = load_prediction(smooth(3, *native), size)
    coarse = known.coarse(factor)
    assert coarse.size == (-(-size[0] // factor), -(-size[1] // factor))
    wanted = F.avg_pool2d(known.probs()[None], factor, ceil_mode=True)[0]
    assert (coarse.probs() - wanted).abs().mean() < 0.02
    labels = known.argmax()
    assert known.coarse(factor).argmax().unique().tolist() == labels.unique().tolist()


def test_a_window_of_one_class_is_not_run():
    probs = torch.zeros(3, 300, 300)
    probs[1] = 1
    known = load_prediction(probs.argmax(0), (300, 300), num_classes=3)
    context = context_over(torch.rand(3, 300, 300), known, 2)
    plan, slots = slots_of(load_prediction(torch.rand(3, 64, 64).argmax(0), (64, 64)).window(0, 0, 64, 64), 4)
    assert context.first_pass(Tile(0, 0, 64, 64), plan, slots) is None


def large_case():
    torch.manual_seed(1)
    image = (F.interpolate(torch.rand(1, 3, 34, 36), (544, 576), mode="bicubic")[0].clamp(0, 1) * 255).byte()
    return image, smooth(3, 136, 144, seed=2)


def test_tiles_agree_with_the_whole_where_strides_fall_alike():
    refiner = DDPSRefiner.from_pretrained(device="cpu", dtype=torch.float32)
    image, logits = large_case()
    whole, tiled = (refiner.refine(image, logits, kind="logits", tile=tile) for tile in (1024, 320))
    assert (whole.labels != tiled.labels).float().mean() < 0.01
    assert whole.changed.float().mean() > 0.02


def test_what_lies_around_has_a_say():
    refiner = DDPSRefiner.from_pretrained(device="cpu", dtype=torch.float32)
    image, logits = large_case()
    with_context = refiner.refine(image, logits, kind="logits")
    refiner.config = replace(refiner.config, inference=replace(refiner.config.inference, working_size=0))
    without = refiner.refine(image, logits, kind="logits")
    assert (with_context.probs - without.probs).abs().mean() > 1e-3


def test_the_first_step_is_shown_at_the_size_of_the_image():
    refiner = DDPSRefiner.from_pretrained(device="cpu", dtype=torch.float32)
    image, logits = large_case()
    seen = []
    answer = refiner.refine(
        image, logits, kind="logits", steps=3, after=(1, 2), return_trajectory=True, tile=320, callback=seen.append
    )
    assert len(answer.trajectory) == 3 and all(mask.shape == (544, 576) for mask in answer.trajectory)
    assert [step.index for step in seen[:3]] == [0, 1, 2]
    first = answer.after[1]
    assert first.labels.shape == (544, 576) and bool(torch.isfinite(first.probs).all())
    # one chain per sample, each with a coarse pass of its own
    several = refiner.refine(image, logits, kind="logits", num_samples=2, tile=320)
    assert (several.probs - refiner.refine(image, logits, kind="logits", tile=320).probs).abs().max() > 1e-3


def test_what_was_seen_coarsely_lies_where_it_belongs_in_an_enlarged_tile():
    torch.manual_seed(0)
    network = SlotUNet(CONFIG.network).eval().requires_grad_(False)
    chain = TileChain(network, make_schedule("linear", 20), CONFIG.schedule, settings_of(after=(1,)), torch.float32)
    slots = smooth(3, 96, 64).softmax(0)
    seen = F.avg_pool2d(slots, 2).clamp(min=1e-4).log()
    first, last = chain.refine(torch.rand(3, 96, 64), slots, 1.5, False, [0], around=[seen])
    assert (first - slots).abs().mean() < 0.02 and (last - slots).abs().mean() < 0.02
