import pytest
from huggingface_hub import EvalResult, ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results

from ddps import hub
from ddps.card import CardMetadata, evaluation_results, model_card
from ddps.config import BackboneConfig, DDPSConfig, FeaturesNetwork, LabelSpace
from ddps.errors import InputError

REPORT = {
    "images": 39,
    "base": {"miou": 67.48, "mbiou": 52.44, "accuracy": 91.25},
    "refined": {"miou": 68.95, "mbiou": 54.91, "accuracy": 91.84},
}


def test_metadata_is_what_the_hub_reads():
    card = ModelCard(model_card(DDPSConfig(name="universal"), CardMetadata(license="apache-2.0", tags=["camera"])))
    assert card.data.library_name == "ddps"
    assert card.data.pipeline_tag == "image-segmentation"
    assert card.data.license == "apache-2.0"
    assert {"ddps", "camera", "arxiv:2306.01721"} <= set(card.data.tags)


def test_nothing_is_claimed_unless_given():
    data = ModelCard(model_card(DDPSConfig())).data.to_dict()
    assert set(data) == {"library_name", "pipeline_tag", "tags"}


def test_results_of_an_evaluation_come_back_from_the_hubs_parser():
    results = evaluation_results(REPORT, "camvid", split="test", predictions="cgnet")
    text = model_card(DDPSConfig(name="mine"), CardMetadata(datasets=["camvid"], results=results))
    data = ModelCard(text).data
    assert data.datasets == ["camvid"]
    assert data.metrics == ["mean_iou", "mean_boundary_iou", "accuracy"]
    assert data.model_name == "mine"
    assert data.eval_results == results
    miou = data.eval_results[0]
    assert (miou.task_type, miou.dataset_type, miou.dataset_split) == ("image-segmentation", "camvid", "test")
    assert (miou.metric_value, miou.metric_args["before_refinement"]) == (68.95, 67.48)
    assert miou.metric_name == "mIoU, refined predictions of cgnet"


def test_results_of_several_sets_stay_apart():
    both = [*evaluation_results(REPORT, "camvid"), *evaluation_results(REPORT, "camvid", predictions="espnet")]
    index = ModelCard(model_card(DDPSConfig(name="mine"), CardMetadata(results=both))).data.to_dict()["model-index"]
    assert [len(entry["metrics"]) for entry in index[0]["results"]] == [3, 3]
    assert model_index_to_eval_results(index) == ("mine", both)


def test_what_was_not_measured_is_left_out():
    (only,) = evaluation_results({"base": {"miou": 1.0}, "refined": {"miou": 2.0, "mbiou": None}}, "x")
    assert only.metric_type == "mean_iou"


def test_metrics_can_be_named_without_results():
    assert ModelCard(model_card(DDPSConfig(), CardMetadata(metrics=["mean_iou"]))).data.metrics == ["mean_iou"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"datasets": "camvid"}, "a sequence of names as datasets; got 'camvid'"),
        ({"tags": ["ok", ""]}, "names in a card's metadata; got ''"),
        ({"license": " "}, "names in a card's metadata"),
        ({"metrics": [3]}, "names in a card's metadata; got 3"),
        ({"results": [{"miou": 3}]}, "huggingface_hub.EvalResult as results"),
    ],
)
def test_metadata_that_the_hub_would_refuse_is_refused(fields, said):
    with pytest.raises(InputError) as caught:
        CardMetadata(**fields)
    assert said in str(caught.value)


@pytest.mark.parametrize("report", [{}, {"base": {"miou": 1}}, {"base": 3, "refined": 4}])
def test_a_report_that_is_none_is_refused(report):
    with pytest.raises(InputError, match="what `ddps evaluate --json` prints"):
        evaluation_results(report, "x")


def test_saving_writes_what_it_is_given(tiny_refiner, tmp_path):
    results = [EvalResult("image-segmentation", "cracks", "Cracks", "mean_iou", 48.5)]
    metadata = CardMetadata(license="mit", datasets=["cracks"], results=results, sections={"Limits": "Dry roads."})
    text = (tiny_refiner.save_pretrained(tmp_path / "m", metadata) / "README.md").read_text(encoding="utf-8")
    data = ModelCard(text).data
    assert (data.license, data.datasets, data.metrics) == ("mit", ["cracks"], ["mean_iou"])
    assert data.eval_results == results
    assert text.endswith("## Limits\n\nDry roads.\n")


def test_the_embedded_weights_card_has_its_metadata():
    text = (hub._embedded_folder() / "universal" / "README.md").read_text(encoding="utf-8")
    data = ModelCard(text).data
    assert (data.license, data.library_name, data.pipeline_tag) == ("apache-2.0", "ddps", "image-segmentation")
    assert data.datasets == ["ccp_fashion", "dsb2018_nuclei", "road_cracks", "axon_sem"]
    assert data.metrics == ["mean_iou", "mean_boundary_iou"]
    rows = [line.split("|")[1:4] for line in text.splitlines() if " test, " in line and line.startswith("|")]
    written = {tuple(cell.strip() for cell in row) for row in rows}
    # The model index says what the table says, no more and no less.
    listed: dict[tuple[str, str], dict[str, EvalResult]] = {}
    for result in data.eval_results:
        key = f"{result.dataset_type} {result.dataset_split}, {result.dataset_config}"
        listed.setdefault((key, str(result.metric_args["images"])), {})[result.metric_type] = result
    assert written == {
        (
            f"{name} ({images})",
            " / ".join(f"{its[metric].metric_args['before_refinement']:.2f}" for metric in data.metrics),
            " / ".join(f"{its[metric].metric_value:.2f}" for metric in data.metrics),
        )
        for (name, images), its in listed.items()
    }


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
    result = EvalResult("image-segmentation", name, name, "mean_iou", 1.0)
    metadata = CardMetadata(license="other\nmit: 1", tags=[name], datasets=[name], results=[result])
    text = model_card(DDPSConfig(name=name, labels=LabelSpace(1, (name,))), metadata)
    # The Hub reads what saving writes: UTF-8, where half a character cannot stand.
    data = ModelCard(text.encode("utf-8", "replace").decode()).data.to_dict()
    assert set(data) == {"library_name", "pipeline_tag", "license", "tags", "datasets", "metrics", "model-index"}
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
