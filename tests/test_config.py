import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddps.config import (
    FORMAT_VERSION,
    BackboneConfig,
    DDPSConfig,
    FeaturesNetwork,
    InferenceConfig,
    LabelSpace,
    LogitsNetwork,
    ScheduleConfig,
)
from ddps.errors import InputError

CONFIGS = [
    DDPSConfig(),
    DDPSConfig(
        name='Übung "1"',
        labels=LabelSpace(2, ("sky", "line\nbreak"), ((0, 0, 0), (255, 1, 2)), ignore_index=-1),
        schedule=ScheduleConfig("cosine", 50, "absorbing"),
        network=LogitsNetwork(image_widths=(8, 16), slot_widths=(4, 8), max_slots=3),
        inference=InferenceConfig(5, "posterior", 0.5, 0.25, 128, 64),
    ),
    DDPSConfig(network=FeaturesNetwork(in_channels=(8, 16), dim_mults=(1, 2), num_classes=19)),
    DDPSConfig(
        labels=LabelSpace(150, void_first=True), network=FeaturesNetwork(num_classes=151), backbone=BackboneConfig()
    ),
]


def edited(path: str, value: object) -> str:
    """The default config as JSON, with one key ("network.max_slots") set to something else."""
    data = json.loads(DDPSConfig().to_json())
    *parents, last = path.split(".")
    part = data
    for parent in parents:
        part = part[parent]
    part[last] = value
    return json.dumps(data)


@pytest.mark.parametrize("config", CONFIGS)
def test_json_roundtrip(config):
    assert DDPSConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("schedule.num_steps", "20", "schedule.num_steps as int"),
        ("schedule.num_steps", True, "schedule.num_steps as int"),
        ("schedule.num_steps", 20.0, "schedule.num_steps as int"),
        ("schedule.num_steps", None, "schedule.num_steps as int"),
        ("schedule.num_steps", 1, "schedule.num_steps in [2, 4096]"),
        ("schedule.num_steps", 10**300, "schedule.num_steps in [2, 4096]"),
        ("schedule.kind", "quadratic", "schedule.kind to be one of 'linear', 'cosine'"),
        ("schedule.kind", ["linear"], "schedule.kind to be one of"),
        ("schedule.kind", True, "schedule.kind to be one of"),
        ("schedule", [], "config.schedule as an object"),
        ("schedule.beta", 1, "unknown 'beta'"),
        ("network", {}, "network.conditioning 'logits' or 'features'"),
        ("network.conditioning", "pixels", "network.conditioning 'logits' or 'features'"),
        ("network.conditioning", {"a": 1}, "network.conditioning 'logits' or 'features'"),
        ("network.image_widths", 8, "network.image_widths as a list"),
        ("network.image_widths", [8, "x", 8, 8], "network.image_widths[1] as int"),
        ("network.image_widths", [8], "of one length, 2 to 6"),
        ("network.image_widths", [10**9] * 4, "network widths in [4, 1024]"),
        ("network.max_slots", 1, "network.max_slots in [2, 64]"),
        ("labels.num_classes", 0, "labels.num_classes in [1, 65536]"),
        ("labels.names", ["sky"], "labels.names with one entry per class"),
        ("labels.palette", [[0, 0]], "labels.palette[0] with 3 entries"),
        ("labels.ignore_index", 2**40, "labels.ignore_index in"),
        ("inference.mix", float("nan"), "inference.mix in [0, 1]"),
        ("inference.mix", float("inf"), "inference.mix in [0, 1]"),
        ("inference.mix", True, "inference.mix as float"),
        ("inference.overlap", 500, "inference.overlap in [0, "),
        ("name", 3, "config.name as str"),
        ("format_version", 0, "format_version in [1, "),
        ("format_version", True, "config.format_version as int"),
    ],
)
def test_refuses(path, value, said):
    with pytest.raises(InputError) as caught:
        DDPSConfig.from_json(edited(path, value))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("dim", 10**9),
        ("dim", 0),
        ("channels", 4097),
        ("in_channels", (10**6,)),
        ("in_channels", ()),
        ("dim_mults", (17,)),
        ("dim_mults", (1,) * 9),
        ("num_classes", 1),
        ("dropout", 1.0),
    ],
)
def test_features_network_is_bounded(field, value):
    with pytest.raises(InputError, match=rf"network\.{field} in \["):
        DDPSConfig(network=dataclasses.replace(FeaturesNetwork(), **{field: value}))


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("embed_dims", (), r"backbone\.embed_dims in"),
        ("depths", (3, 4, 6), r"backbone\.depths with 4 entries"),
        ("depths", (3, 4, 6, 10**6), r"backbone\.depths in"),
        ("num_heads", (1, 2, 5, 7), "that divide embed_dims"),
        ("mlp_ratio", 0, r"backbone\.mlp_ratio in"),
        ("std", (0.0, 1.0, 1.0), r"backbone\.std in"),
        ("mean", (float("nan"), 1.0, 1.0), r"backbone\.mean in"),
        ("embed_dims", (64, 128, 320, 640), r"network\.in_channels \(64, 128, 320, 640\)"),
    ],
)
def test_backbone_is_bounded(field, value, said):
    with pytest.raises(InputError, match=said):
        DDPSConfig(network=FeaturesNetwork(), backbone=dataclasses.replace(BackboneConfig(), **{field: value}))


def test_classes_of_network_and_users_fit_together():
    network = FeaturesNetwork(num_classes=20)
    DDPSConfig(network=network, labels=LabelSpace(19, void_first=True))
    for labels in (
        LabelSpace(19),
        LabelSpace(20, void_first=True),
        LabelSpace(None, void_first=True),
        LabelSpace(19, ignore_index=18, void_first=True),
    ):
        with pytest.raises(InputError):
            DDPSConfig(network=network, labels=labels)
    for keywords in ({"labels": LabelSpace(2, void_first=True)}, {"backbone": BackboneConfig()}):
        with pytest.raises(InputError, match="conditioning 'features'"):
            DDPSConfig(**keywords)


def test_version_1_is_read():
    data = json.loads(DDPSConfig(name="old").to_json())
    data["format_version"] = 1
    del data["backbone"], data["labels"]["void_first"]
    assert DDPSConfig.from_json(json.dumps(data)) == DDPSConfig(name="old")
    with pytest.raises(InputError, match="no labels"):
        DDPSConfig.from_json(json.dumps({key: value for key, value in data.items() if key != "labels"}))
    data["format_version"] = 2
    with pytest.raises(InputError, match="no backbone"):
        DDPSConfig.from_json(json.dumps(data))


def test_version_2_knows_no_classes_by_name():
    data = json.loads(DDPSConfig(name="old").to_json())
    del data["network"]["classes"]
    for version in (1, 2):
        old = json.dumps({**data, "format_version": version})
        assert DDPSConfig.from_json(old) == DDPSConfig(name="old")
    with pytest.raises(InputError, match="no classes"):
        DDPSConfig.from_json(json.dumps(data))


def test_version_3_gives_probabilities_out_as_they_are():
    data = json.loads(DDPSConfig(name="old").to_json())
    del data["inference"]["hedge"]
    old = DDPSConfig.from_json(json.dumps({**data, "format_version": 3}))
    assert old == DDPSConfig(name="old") and old.inference.hedge == 0
    with pytest.raises(InputError, match="no hedge"):
        DDPSConfig.from_json(json.dumps(data))


def test_only_refiners_of_predictions_hedge():
    for hedge in (-0.1, 1.1, float("nan")):
        with pytest.raises(InputError, match=r"inference\.hedge"):
            DDPSConfig(inference=InferenceConfig(hedge=hedge))
    with pytest.raises(InputError, match=r"inference\.hedge 0"):
        DDPSConfig(network=FeaturesNetwork(), inference=InferenceConfig(hedge=0.2))


def test_classes_by_name_are_those_of_the_label_space():
    config = DDPSConfig(labels=LabelSpace(5), network=LogitsNetwork(classes=5))
    assert DDPSConfig.from_json(config.to_json()) == config
    for labels in (LabelSpace(4), LabelSpace()):
        with pytest.raises(InputError, match=r"network\.classes"):
            DDPSConfig(labels=labels, network=LogitsNetwork(classes=5))


def test_palette_is_bounded():
    with pytest.raises(InputError, match=r"labels\.palette in \[0, 255\]"):
        DDPSConfig(labels=LabelSpace(1, palette=((0, 256, 0),)))


@pytest.mark.parametrize("path", ["format_version", "schedule", "network.conditioning", "inference.mix"])
def test_refuses_a_missing_key(path):
    data = json.loads(DDPSConfig().to_json())
    *parents, last = path.split(".")
    part = data[parents[0]] if parents else data
    del part[last]
    with pytest.raises(InputError, match=last):
        DDPSConfig.from_json(json.dumps(data))


def test_newer_format_says_upgrade_whatever_else_it_holds():
    with pytest.raises(InputError, match="pip install -U ddps"):
        DDPSConfig.from_json(json.dumps({"format_version": FORMAT_VERSION + 1, "a key of tomorrow": 1}))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "3", '"x"', "[" * 10**5, '{"a":' * 10**5, "9" * 10**5, "\x00", "{'name': 1}"]
)
def test_refuses_what_is_no_object(text):
    with pytest.raises(InputError):
        DDPSConfig.from_json(text)


def test_defaults_hold_their_own_bounds():
    # asdict and back, so a bound that a default breaks shows here and not at a user's first save.
    assert dataclasses.asdict(DDPSConfig())["format_version"] == FORMAT_VERSION


@pytest.mark.parametrize("levels", [2, 3, 4])
def test_stride_is_that_of_the_deepest_level(levels):
    network = LogitsNetwork(image_widths=(8,) * levels, slot_widths=(8,) * levels)
    assert network.stride == 2**levels


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
paths = st.sampled_from(
    [
        f"{part}.{key}" if key else part
        for part, value in dataclasses.asdict(DDPSConfig()).items()
        for key in ["", *(value if isinstance(value, dict) else [])]
    ]
)


@settings(max_examples=200, deadline=None)
@given(paths, json_values)
def test_any_value_anywhere_is_taken_whole_or_refused(path, value):
    text = edited(path, value)
    try:
        config = DDPSConfig.from_json(text)
    except InputError:
        return
    assert DDPSConfig.from_json(config.to_json()) == config
