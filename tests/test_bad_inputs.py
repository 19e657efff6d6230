"""Properties that hold of any input: it is refused in one line, or answered whole. Hundreds of inputs; the long suite's
test of the same name tries tens of thousands."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ddps import DDPSRefiner
from ddps.cli.main import main
from ddps.datasets import read_classes
from ddps.errors import InputError
from ddps.predictions import load_prediction
from ddps.stacks import refine_masks

from .conftest import make_tiny_refiner
from .long import fuzz_arrays, fuzz_commands
from .long.fuzz_mutations import MUTATIONS, bad_bytes
from .long.fuzz_readers import READERS, accepts, config_files, npz
from .whole_models import whole_refiner

# libraries warn of what they repair
pytestmark = pytest.mark.filterwarnings("ignore")
quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
REFINER = make_tiny_refiner()
HEIGHT, WIDTH = fuzz_arrays.HEIGHT, fuzz_arrays.WIDTH
IMAGE = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bad")


@pytest.mark.parametrize("kind", READERS)
def test_readers_take_their_good_files(kind, folder):
    reader = READERS[kind]
    assert accepts(reader, reader.seeds()[0], folder)
    assert not accepts(reader, b"\x00", folder)


@pytest.mark.parametrize("kind", READERS)
@quick
@given(
    edits=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 8), st.binary(max_size=8)), max_size=4),
    data=st.data(),
)
def test_files_with_any_bytes_changed(kind, folder, edits, data):
    reader = READERS[kind]
    content = bytearray(data.draw(st.sampled_from(reader.seeds())))
    for place, length, replacement in edits:
        content[place : place + length] = replacement
    accepts(reader, bytes(content), folder)


@pytest.mark.parametrize("kind", READERS)
def test_files_that_keep_their_outer_form(kind, folder):
    reader, seeds = READERS[kind], READERS[kind].seeds()
    assert set(MUTATIONS) == set(READERS)
    refused = [not accepts(reader, bad_bytes(kind, index, seeds), folder) for index in range(60)]
    assert sum(refused) > 30


@quick
@given(data=st.data(), value=JSON)
def test_a_config_with_any_value_in_any_place(folder, data, value):
    config = json.loads(data.draw(st.sampled_from(config_files())))
    part = config
    while True:
        key = data.draw(st.sampled_from(list(part) if isinstance(part, dict) else list(range(len(part)))))
        if not isinstance(part[key], dict | list) or not part[key] or data.draw(st.booleans()):
            break
        part = part[key]
    part[key] = value
    accepts(READERS["config"], json.dumps(config).encode(), folder)


@quick
@given(prediction=arrays.arrays(
    st.one_of(arrays.scalar_dtypes(), arrays.floating_dtypes(), arrays.integer_dtypes()),
    arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6),
))  # fmt: skip
def test_predictions_of_any_type_and_shape(prediction):
    fuzz_arrays.accepts(REFINER, {"image": IMAGE, "prediction": prediction})


@quick
@given(
    prediction=arrays.arrays(
        arrays.floating_dtypes(sizes=(16, 32, 64)), st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5)),
        elements={"allow_nan": True, "allow_infinity": True},
    ),
    kind=st.sampled_from(("auto", "logits", "probs", "labels")),
    layout=st.sampled_from((np.asfortranarray, np.ascontiguousarray, lambda v: v[::-1, :, ::-1])),
)  # fmt: skip
def test_logits_of_any_values_and_layout(prediction, kind, layout):
    given_values = layout(prediction)
    given_values.flags.writeable = False
    fuzz_arrays.accepts(REFINER, {"image": IMAGE, "prediction": given_values, "kind": kind})


@quick
@given(
    labels=arrays.arrays(
        st.one_of(arrays.integer_dtypes(), arrays.unsigned_integer_dtypes(), arrays.boolean_dtypes()),
        arrays.array_shapes(min_dims=2, max_dims=2, max_side=6),
    ),
    ignore_index=st.sampled_from((255, 0, -1, 2**31 - 1)) | st.integers(),
    num_classes=st.none() | st.integers(-1, 300),
)
def test_label_maps_of_any_ids(labels, ignore_index, num_classes):
    arguments = {"image": IMAGE, "prediction": labels, "ignore_index": ignore_index, "num_classes": num_classes}
    fuzz_arrays.accepts(REFINER, arguments)


@quick
@given(image=arrays.arrays(
    st.one_of(arrays.scalar_dtypes(), arrays.floating_dtypes(), st.just(np.dtype(np.uint8))),
    arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
))  # fmt: skip
def test_images_of_any_type_and_shape(image):
    fuzz_arrays.accepts(REFINER, {"image": image, "prediction": fuzz_arrays.blocks(np.random.default_rng(0), 3, 8, 8)})


@pytest.mark.parametrize("kind", fuzz_arrays.KINDS[:-1])
def test_calls_of_careless_callers(kind):
    assert not all(fuzz_arrays.accepts(REFINER, fuzz_arrays.call(kind, index)) for index in range(60))


def test_command_lines(folder, tiny_model_dir, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    fuzz_commands.make_world(folder / "world", tiny_model_dir)
    (folder / "scratch").mkdir()
    lines = [
        fuzz_commands.command_line(index, folder / "world", folder / "scratch", tiny_model_dir) for index in range(80)
    ]
    codes = [fuzz_commands.run(line, folder / "scratch") for line in lines]
    assert codes.count(2) > 40


class TestWhatFuzzingFound:
    """Each was a traceback, or worse, a wrong answer."""

    def test_probabilities_of_many_classes_that_sum_to_nothing(self):
        """At 500 classes the tolerance for rounding to 8 bit allowed a sum of 0, and the answer was NaN."""
        probs = np.full((500, 4, 4), 1 / 500, np.float32)
        probs[:, 0, 0] = 0
        with pytest.raises(InputError, match="sums 0 to 1"):
            REFINER.refine(IMAGE, probs, kind="probs")

    @pytest.mark.parametrize("values", [np.full((3, 4, 4), 2**64 - 1, np.uint64), np.full((4, 4), 2**63, np.uint64)])
    def test_unsigned_numbers_beyond_int64(self, values):
        """They became negative: logits of -1, or void where ignore_index is -1."""
        with pytest.raises(InputError, match=r"whole numbers up to 2\*\*63 - 1"):
            REFINER.refine(IMAGE, values, ignore_index=-1)

    @pytest.mark.parametrize(
        "keyword",
        [
            {"num_classes": 10**12},
            {"num_classes": "3"},
            {"num_classes": -(2**70)},
            {"ignore_index": 2**40},
            {"ignore_index": None},
            {"ignore_index": 1 + 1j},
            {"kind": np.zeros(2)},
            {"preset": np.zeros(2)},
            {"sampler": np.zeros(2)},
            {"after": None},
        ],
        ids=str,
    )
    def test_keywords_of_another_type_or_size(self, keyword):
        labels = fuzz_arrays.blocks(np.random.default_rng(0), 3, HEIGHT, WIDTH).argmax(0)
        with pytest.raises(InputError, match=next(iter(keyword))):
            REFINER.refine(IMAGE, labels, **keyword)

    @pytest.mark.parametrize(
        "make",
        [lambda t: t.to_sparse(), lambda t: t.to("meta"), lambda t: torch.nested.nested_tensor([t[0], t[0, :1]])],
    )
    def test_predictions_that_are_not_dense(self, make):
        values = torch.rand(3, 4, 4)
        with pytest.raises(InputError, match="a prediction as a dense tensor"):
            REFINER.refine(IMAGE, make(values))
        with pytest.raises(InputError, match="a stack of masks as a dense tensor"):
            refine_masks(REFINER, IMAGE, make(values))

    @pytest.mark.parametrize("refiner", [make_tiny_refiner, whole_refiner])
    def test_weights_whose_numbers_overflow(self, refiner):
        """Each weight is finite, so they load; the answer was a mask of NaN."""
        network = refiner().network
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(1e12)
        made = DDPSRefiner(refiner().config, network, device="cpu")
        given = None if refiner is whole_refiner else fuzz_arrays.blocks(np.random.default_rng(0), 3, HEIGHT, WIDTH)
        with pytest.raises(InputError, match="a network whose answer is finite"):
            made.refine(IMAGE, given)

    @pytest.mark.parametrize(
        ("features", "said"),
        [
            ({}, "as a list of torch tensors"),
            ([], "a list of nothing"),
            ([np.zeros((1, 8, 6, 10)), None], "a list of NoneType, ndarray"),
            ([torch.zeros(1, 8, 6, 10), torch.full((1, 16, 3, 5), float("nan"))], "feature map 1 with finite values"),
            ([torch.zeros(1, 8, 6, 10), torch.zeros(1, 16, 3, 5, dtype=torch.int64)], "of a floating dtype"),
            ([torch.zeros(1, 8, 6, 10), torch.zeros(1, 16, 3, 5, device="meta")], "as a dense tensor"),
            ([torch.full((1, 8, 6, 10), 3e38), torch.zeros(1, 16, 3, 5)], "whose answer is finite"),
        ],
    )
    def test_feature_maps(self, features, said):
        with pytest.raises(InputError, match=said):
            whole_refiner().refine(IMAGE, features=features)

    def test_classes_nested_too_deep(self, folder):
        (folder / "deep.json").write_text("[" * 90_000)
        with pytest.raises(InputError, match="as a JSON object"):
            read_classes(folder / "deep.json")

    def test_an_archive_with_another_thing_than_an_array(self, folder, capsys):
        (folder / "raw.npz").write_bytes(npz({"logits": b"raw"}))
        with pytest.raises(InputError, match="whole numpy file"):
            load_prediction(folder / "raw.npz", (4, 4))

    @pytest.mark.parametrize("words", [["info", "x", "a\nb\x1b[31m"], ["refine", "x" * 5000, "b", "-o", "c.png"]])
    def test_a_command_line_ends_in_one_line(self, words, capsys):
        try:
            code = main(words)
        except SystemExit as ended:
            code = ended.code
        [line] = capsys.readouterr().err.splitlines()
        assert code == 2 and line.isprintable() and line.startswith("ddps: error: ") and "; try " in line
