"""What each stage trains, and how fast."""

import pytest
import torch

from ddps.errors import InputError
from ddps.models.paper import FeaturesDenoiser
from ddps.training.paper import load_recipe
from ddps.training.paper.stages import plan_stages

from .conftest import changed, tiny_recipe


def network() -> FeaturesDenoiser:
    torch.manual_seed(0)
    return FeaturesDenoiser(tiny_recipe().network, tiny_recipe().model.schedule)


def test_the_papers_learning_rates():
    recipe = load_recipe("paper-segformer-b2-ade20k")
    single, multi = plan_stages(recipe, True)
    for stage in (single, multi):
        rate = [stage.learning_rate(recipe.optimizer, stage.start + step) for step in range(80_000)]
        assert (
            rate[0] == 1e-6 and rate[500] == pytest.approx((1e-6 + 1.5e-4) / 2) and rate[1000] == rate[19_999] == 1.5e-4
        )
        assert [rate[20_000 * k] for k in (1, 2, 3)] == [1.5e-4 / 2, 1.5e-4 / 4, 1.5e-4 / 8]
    assert (single.start, single.end, multi.start, multi.end) == (0, 80_000, 80_000, 160_000)


@pytest.mark.parametrize("given", [True, False])
def test_what_asks_for_gradients(given):
    single, multi = plan_stages(tiny_recipe(), given)
    assert single.single_step and not multi.single_step
    for stage, fusion in ((single, not given), (multi, False)):
        model = network()
        trained = stage.prepare(model)
        names = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
        assert names == {"unet", "conv_seg_new", *(("convs", "fusion_conv") if fusion else ())}
        assert len(trained) == sum(p.requires_grad for p in model.parameters())
        stage.set_modes(model)
        assert model.unet.training and model.dropout.training
        assert model.convs.training == model.fusion_conv.bn.training == fusion
        statistics = {name for name in stage.moving(model) if "running" in name}
        assert bool(statistics) == fusion and not any(name.startswith("log_") for name in stage.moving(model))


def test_all_trained():
    recipe = changed(tiny_recipe(), multi_step={"fusion": "trained", "embedding": "trained"})
    model = network()
    plan_stages(recipe, False)[1].prepare(model)
    assert all(p.requires_grad for p in model.parameters())


def test_a_random_fusion_is_not_frozen():
    with pytest.raises(InputError, match="which single_step freezes"):
        plan_stages(changed(tiny_recipe(), single_step={"fusion": "frozen"}), False)
    with pytest.raises(InputError, match="which multi_step freezes"):
        plan_stages(changed(tiny_recipe(), single_step={"iterations": 0}), False)
    assert len(plan_stages(changed(tiny_recipe(), single_step={"iterations": 0}), True)) == 1
