from huggingface_hub import ModelCard

from ddps.card import model_card
from ddps.config import BackboneConfig, DDPSConfig, FeaturesNetwork, LabelSpace


def test_metadata_is_what_the_hub_reads():
    card = ModelCard(model_card(DDPSConfig(name="universal"), license="apache-2.0", tags=["camera"]))
    assert card.data.library_name == "ddps"
    assert card.data.pipeline_tag == "image-segmentation"
    assert card.data.license == "apache-2.0"
    assert {"ddps", "camera", "arxiv:2306.01721"} <= set(card.data.tags)


def test_no_licence_is_claimed_unless_given():
    assert ModelCard(model_card(DDPSConfig())).data.license is None


def test_body_says_what_the_config_holds():
    text = model_card(
        DDPSConfig(name="universal"),
        source="me/mine",
        parameters=1234567,
        sections={"Training": "On nuclei.\n", "Limits": "Not for masks of air."},
    )
    assert "# universal\n" in text
    assert 'from_pretrained("me/mine")' in text
    assert "| parameters | 1,234,567 |" in text
    assert "any number" in text
    assert "uniform kernel, linear schedule of 20 steps" in text
    assert text.index("## Training\n\nOn nuclei.\n\n## Limits\n\nNot for masks of air.\n")


def test_classes_and_features_are_named():
    text = model_card(DDPSConfig(labels=LabelSpace(2, ("sky", "road")), network=FeaturesNetwork(num_classes=2)))
    assert "## Classes\n\n0 sky, 1 road\n" in text
    assert "features=features" in text
    assert "64, 128, 320, 512 channels" in text


def test_hostile_names_stay_text():
    name = "a\n---\nlicense: mit\n# <script>|x|\x1b[0m\ud800"
    text = model_card(DDPSConfig(name=name, labels=LabelSpace(1, (name,))), license="other\nmit: 1", tags=[name])
    # The Hub reads what saving writes: UTF-8, where half a character cannot stand.
    data = ModelCard(text.encode("utf-8", "replace").decode()).data.to_dict()
    assert set(data) == {"library_name", "pipeline_tag", "license", "tags"}
    assert data["license"] == "other\nmit: 1"
    body = text.split("\n---\n", 1)[1]
    assert "license: mit\n" not in body
    assert "<script" not in body.replace("\\<", "")
    assert "\x1b" not in text


def test_whole_models_take_an_image():
    labels, network = LabelSpace(150, void_first=True), FeaturesNetwork(num_classes=151)
    text = model_card(DDPSConfig(labels=labels, network=network, backbone=BackboneConfig()))
    assert "refiner.refine(image)\n" in text and "guided by the image" in text
    assert "| encoder | Mix Transformer, widths 64, 128, 320, 512, depths 3, 4, 6, 3 |" in text
    assert "| classes | 150 |" in text and "void first" in text
