"""The canvas that forgets answers as the one that keeps everything; stored tiles come back as they were."""

from functools import partial

import numpy as np
import torch

from ddps.canvas import Canvas
from ddps.large_canvas import LargeCanvas, Spool, parts
from ddps.large_prediction import load_streamed
from ddps.predictions import load_prediction
from ddps.slots import SlotPlan
from ddps.tiling import Tile, plan_tiles, plan_turns

SIZE = (150, 210)


def prepared():
    labels = np.kron(np.random.default_rng(0).integers(0, 3, (15, 14)), np.ones((10, 15), int)).astype(np.uint8)
    labels[60:80, :50] = 255
    judge = partial(load_prediction, size=SIZE)
    known, whole = load_streamed(labels, SIZE, judge), load_prediction(labels, SIZE)
    tiles = plan_tiles(SIZE, 64, 16)
    generator = torch.Generator().manual_seed(0)
    plan = SlotPlan(torch.tensor([2, 0, 1]), 3, other=False)
    answers = {
        tile: (3 * torch.randn(3, tile.height, tile.width, generator=generator)).softmax(0) for tile in tiles[1:]
    }
    canvas = Canvas(whole, 16, 0.8)
    for tile, answer in answers.items():
        canvas.add(tile, plan, answer)
    large = LargeCanvas(known, 16, 0.8)

    def supply(tile: Tile) -> None:
        if tile in answers:
            large.add(tile, plan, answers[tile])

    return canvas, large, plan_turns(SIZE, tiles), supply


def test_parts_are_those_of_the_whole():
    canvas, large, turns, supply = prepared()
    probs, most = canvas.probs(), 0
    for part in parts(large, turns, supply):
        rows, columns = part.slices_in(Tile(0, 0, *SIZE))
        # an exponential's last bit depends on where in an array it is computed
        torch.testing.assert_close(large.window(part), probs[:, rows, columns], rtol=0, atol=1e-6)
        most = max(most, len(large.pieces))
    across = len({turn.tile.left for turn in turns})
    assert large.pieces == [] and most <= across + 2 < len(turns)


def test_displacement_of_the_parts_is_that_of_the_whole():
    canvas, large, turns, supply = prepared()
    for part in parts(large, turns, supply):
        large.count(part)
    assert large.displacement() == canvas.displacement() > 0
    large.trust_exact_labels()
    canvas.trust_exact_labels()
    assert large.mix == canvas.mix


def test_stored_tiles_come_back(tmp_path):
    _, large, turns, supply = prepared()
    with Spool(tmp_path) as spool:
        kept = {}
        for turn in turns[1:]:
            supply(turn.tile)
            spool.keep(large, turn.tile)
            kept[turn.tile] = large.pieces.pop()
        for turn in reversed(turns[1:]):
            spool.give_back(large, turn.tile)
            piece = large.pieces.pop()
            assert piece.tile == turn.tile and piece.plan == kept[turn.tile].plan
            assert torch.equal(piece.probs, kept[turn.tile].probs)
        spool.give_back(large, turns[0].tile)
        assert large.pieces == []
    assert list(tmp_path.iterdir()) == []
