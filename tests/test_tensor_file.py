import json
import pickle
import tracemalloc

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save, save_file

from ddps.errors import InputError
from ddps.tensor_file import read_notes, read_tensors, write_tensors

TENSORS = {
    "conv.weight": torch.arange(24, dtype=torch.float32).reshape(2, 3, 2, 2) / 8,
    "norm.running_var": torch.tensor([0.25, 4.0]),
    "norm.num_batches_tracked": torch.tensor(7),
}
EXPECTED = {name: tensor.to("meta") for name, tensor in TENSORS.items()}


def written(path, tensors, half=False):
    with open(path, "wb") as file:
        write_tensors(file, tensors, half=half)
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def refusal(path, expected=EXPECTED):
    with pytest.raises(InputError) as caught:
        read_tensors(path, expected)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_written_is_read(path):
    loaded = read_tensors(written(path, TENSORS), EXPECTED)
    assert list(loaded) == list(EXPECTED)
    for name, tensor in TENSORS.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor)


def test_half_is_half_the_size_and_loads_as_float32(path, tmp_path):
    tensors = {"weight": torch.randn(64, 64, generator=torch.Generator().manual_seed(0)), "count": torch.tensor(2**40)}
    loaded = read_tensors(written(path, tensors, half=True), tensors)
    assert loaded["weight"].dtype == torch.float32
    assert torch.equal(loaded["weight"], tensors["weight"].half().float())
    assert torch.equal(loaded["count"], tensors["count"])
    assert path.stat().st_size < 0.6 * written(tmp_path / "full", tensors).stat().st_size


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_stored_floats_become_the_models(path, dtype):
    save_file({"w": torch.tensor([0.5, -2.0], dtype=dtype)}, path)
    loaded = read_tensors(path, {"w": torch.empty(2, device="meta")})
    assert loaded["w"].dtype == torch.float32
    assert loaded["w"].tolist() == [0.5, -2.0]


def test_tensors_that_share_memory_or_are_strided_are_written(path):
    base = torch.arange(6.0).reshape(2, 3)
    tensors = {"a": base, "b": base, "c": base.T, "d": base[:, 1], "e": torch.tensor(1.0).expand(4)}
    loaded = read_tensors(written(path, tensors), tensors)
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())


def test_loaded_tensors_outlive_the_file(path):
    loaded = read_tensors(written(path, TENSORS), EXPECTED)
    path.write_bytes(b"\0" * path.stat().st_size)
    assert torch.equal(loaded["conv.weight"], TENSORS["conv.weight"])


def test_names_every_kind_of_difference(path):
    tensors = {
        "conv.weight": torch.zeros(2, 2),
        "norm.running_var": torch.zeros(2, dtype=torch.int64),
        "b\x1b\n": torch.zeros(1),
    }
    message = refusal(written(path, tensors))
    assert "missing 'norm.num_batches_tracked'" in message
    assert "unexpected 'b\\x1b\\n'" in message
    assert "mis-shaped 'conv.weight (2, 2) instead of (2, 3, 2, 2)'" in message
    assert "of another dtype 'norm.running_var I64 instead of float32'" in message


def test_many_differences_stay_one_short_line(path):
    message = refusal(written(path, {f"{'layer' * 50 if i < 9 else ''}{i}": torch.zeros(1) for i in range(900)}))
    assert "and 897 more" in message
    assert len(message) < 1000


@pytest.mark.parametrize("stored", [torch.float32, torch.int32, torch.bool])
def test_an_integer_is_taken_only_as_it_is(path, stored):
    save_file({"n": torch.ones(2, dtype=stored)}, path)
    assert "of another dtype 'n " in refusal(path, {"n": torch.empty(2, dtype=torch.int64, device="meta")})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_non_finite_values_are_named(path, value):
    tensors = {"fine": torch.zeros(3), "bad.weight": torch.tensor([0.0, value])}
    save_file(tensors, path)
    assert "NaN or infinity in 'bad.weight'" in refusal(path, tensors)
    with pytest.raises(InputError, match=r"NaN or infinity in 'bad\.weight'"), open(path, "wb") as file:
        write_tensors(file, tensors)


def test_a_float64_beyond_float32_is_not_finite(path):
    save_file({"w": torch.tensor([1e300], dtype=torch.float64)}, path)
    assert "NaN or infinity in 'w'" in refusal(path, {"w": torch.empty(1, device="meta")})


def test_half_refuses_what_overflows(path):
    with pytest.raises(InputError, match="finite numbers in float16 weights; got NaN or infinity in 'w'"):
        written(path, {"w": torch.tensor([70000.0])}, half=True)


def test_log_tables_may_hold_the_log_of_zero(path):
    tables = {"head.log_cumprod_bt": torch.tensor([-1.0, float("-inf")])}
    assert torch.equal(
        read_tensors(written(path, tables), tables)["head.log_cumprod_bt"], tables["head.log_cumprod_bt"]
    )
    for value in ("nan", "inf"):
        save_file({"head.log_cumprod_bt": torch.tensor([0.0, float(value)])}, path)
        assert "NaN or infinity" in refusal(path, tables)


def test_another_shape_is_refused_from_the_header_alone(path):
    resource = pytest.importorskip("resource", reason="peak memory is read the Unix way")
    save_file({"w": torch.zeros(8)}, path)
    huge = {"w": torch.empty(10**12, device="meta")}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "mis-shaped 'w (8,) instead of (1000000000000,)'" in refusal(path, huge)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


def test_a_header_that_claims_more_than_the_file_holds(path):
    header = json.dumps({"w": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 16)
    assert "as safetensors" in refusal(path, {"w": torch.empty(10**12, device="meta")})


@pytest.mark.parametrize(
    "data",
    [b"", b"abc", b"\xff" * 64, (10**15).to_bytes(8, "little") + b"{}", b"PK\x03\x04" + b"\0" * 64, pickle.dumps([1])],
    ids=["empty", "short", "ones", "long header", "zip", "pickle"],
)
def test_other_files_are_refused(path, data):
    path.write_bytes(data)
    assert "as safetensors" in refusal(path)


def test_a_git_lfs_pointer_is_recognised(path):
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    assert "git lfs pull" in refusal(path)


def test_a_pickle_beside_it_is_never_loaded(path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    (path.parent / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    assert "'pytorch_model.bin', which is never unpickled" in refusal(path)


def test_a_missing_file_is_named(path):
    assert f"{path}; got no such file" in refusal(path)


def test_every_truncation_is_refused(path):
    data = save(TENSORS)
    for length in range(len(data)):
        path.write_bytes(data[:length])
        refusal(path)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_an_edited_byte_is_refused_or_harmless(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "edited.safetensors"
    content = bytearray(save(TENSORS))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        loaded = read_tensors(path, EXPECTED)
    except InputError:
        return
    assert {name: (t.shape, t.dtype) for name, t in loaded.items()} == {
        n: (t.shape, t.dtype) for n, t in EXPECTED.items()
    }
    assert all(torch.isfinite(tensor).all() for tensor in loaded.values())


def test_the_file_is_plain_safetensors(path):
    assert set(load_file(written(path, TENSORS))) == set(TENSORS)


def test_the_file_is_the_librarys_byte_for_byte(path):
    turned = torch.arange(12, dtype=torch.float64).reshape(3, 4).T
    dtypes = torch.bool, torch.int8, torch.float16, torch.bfloat16
    kinds = {str(dtype): torch.ones(3, dtype=dtype) for dtype in dtypes}
    tensors = {"z": torch.empty(0, 2), **TENSORS, "turned": turned, **kinds, 'ü"': torch.tensor(True)}
    library = save({name: tensor.contiguous() for name, tensor in tensors.items()}, {"format": "pt"})
    ours = written(path, tensors).read_bytes()
    lengths = [8 + int.from_bytes(data[:8], "little") for data in (ours, library)]
    assert ours[lengths[0] :] == library[lengths[1] :]
    headers = [json.loads(data[8:length]) for data, length in zip((ours, library), lengths, strict=True)]
    assert headers[0] == headers[1]


def test_views_of_one_tensor_are_written_each(path):
    whole = torch.arange(6.0)
    loaded = load_file(written(path, {"whole": whole, "end": whole[3:], "again": whole}))
    assert torch.equal(loaded["whole"], whole) and torch.equal(loaded["again"], whole)
    assert torch.equal(loaded["end"], whole[3:])


def test_no_more_than_one_tensor_is_in_memory_twice(path):
    tensors = {f"weight{number}": torch.ones(2**17) for number in range(40)}
    tracemalloc.start()
    try:
        written(path, tensors)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert path.stat().st_size > 40 * 2**19 and peak < 4 * 2**19


def test_notes_are_kept_in_a_file_that_is_the_same_every_time(path):
    notes = {"b": "1", "a": 'ü "quoted"', "config_sha256": "0" * 64}
    with open(path, "wb") as file:
        write_tensors(file, TENSORS, notes=notes)
    assert read_notes(path) == {"format": "pt", **notes}
    assert all(torch.equal(value, TENSORS[name]) for name, value in read_tensors(path, EXPECTED).items())
    length = int.from_bytes(path.read_bytes()[:8], "little")
    header = json.loads(path.read_bytes()[8 : 8 + length])
    assert next(iter(header)) == "__metadata__" and list(header["__metadata__"]) == ["format", *notes]
    assert length % 8 == 0  # the tensors lie where they can be mapped
