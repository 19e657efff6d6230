import struct
import threading
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

from ddps import inputs
from ddps.errors import InputError
from ddps.inputs import load_image


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype=np.uint8)


def canonical(array):
    return torch.from_numpy(np.array(array).astype(np.float32) / 255).permute(2, 0, 1)


def check(result, expected):
    assert result.dtype == torch.float32 and result.is_contiguous() and result.device.type == "cpu"
    torch.testing.assert_close(result, expected, atol=1e-6, rtol=0)


def test_every_container_gives_the_same_tensor(tmp_path, pixels):
    expected = canonical(pixels)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    for image in [
        str(tmp_path / "a.png"),
        tmp_path / "a.png",
        Image.fromarray(pixels),
        pixels,
        pixels.astype(np.float32) / 255,
        (pixels / 255).astype(">f8"),
        tensor,
        tensor.float() / 255,
        tensor.double() / 255,
        torch.nn.Parameter(tensor.float() / 255),
    ]:
        check(load_image(image), expected)
    torch.testing.assert_close(load_image(tensor.bfloat16() / 255), expected, atol=1e-2, rtol=0)


def test_grey_and_alpha(pixels):
    grey = pixels[:, :, 0]
    expected = canonical(np.stack([grey] * 3, -1))
    for image in [grey, grey[:, :, None], grey / 255, Image.fromarray(grey)]:
        check(load_image(image), expected)
    for image in [torch.from_numpy(grey.copy()), torch.from_numpy(grey.copy())[None]]:
        check(load_image(image), expected)
    rgba = np.dstack([pixels, grey])
    for image in [rgba, rgba / 255, torch.from_numpy(rgba).permute(2, 0, 1), Image.fromarray(rgba)]:
        check(load_image(image), canonical(pixels))


def test_strided_and_read_only_arrays_are_read_and_never_changed(pixels):
    frozen = pixels.copy()
    frozen.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(load_image(frozen), canonical(pixels))
        check(load_image(frozen[::-1, ::-2]), canonical(pixels[::-1, ::-2]))
        check(load_image(np.asfortranarray(frozen)), canonical(pixels))


def test_the_result_shares_no_memory_with_the_input(pixels):
    for image in [
        (pixels / 255).astype(np.float32),
        torch.from_numpy(pixels / 255).float().permute(2, 0, 1).contiguous(),
        torch.rand(1, 4, 4),
        torch.rand(4, 4),
    ]:
        before = np.asarray(image).copy()
        load_image(image).fill_(-1)
        np.testing.assert_array_equal(np.asarray(image), before)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(tmp_path, orientation):
    rng = np.random.default_rng(0)
    upright = np.kron(rng.integers(0, 256, (3, 2, 3)), np.ones((16, 16, 1))).astype(np.uint8)
    turns = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(turns[orientation](upright)))
    stored.save(tmp_path / "a.jpg", exif=exif, quality=98, subsampling=0)
    torch.testing.assert_close(load_image(tmp_path / "a.jpg"), canonical(upright), atol=0.06, rtol=0)
    with Image.open(tmp_path / "a.jpg") as opened:
        assert load_image(opened).shape == (3, 48, 32)
        assert opened.size == stored.size


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"])
def test_every_pil_mode_becomes_rgb(mode):
    colours = np.zeros((6, 6, 3), np.uint8)
    colours[:3], colours[3:] = (200, 40, 10), (10, 60, 220)
    if mode == "LAB":
        image = Image.frombytes("LAB", (6, 6), bytes([128, 0, 0]) * 36)
    else:
        image = Image.fromarray(colours).convert("RGB" if mode != "PA" else "RGBA").convert(mode)
    before = image.tobytes()
    result = load_image(image)
    assert result.shape == (3, 6, 6) and result.min() >= 0 and result.max() <= 1
    assert image.tobytes() == before and image.mode == mode
    if mode in ("RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"):
        torch.testing.assert_close(result, canonical(colours), atol=0.05, rtol=0)


def test_palette_with_transparency(tmp_path):
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.save(tmp_path / "a.png", transparency=b"\x00\x80\xff")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(load_image(tmp_path / "a.png"), torch.eye(3)[:, None, :])


def test_16_bit_grey_is_scaled(tmp_path):
    values = np.array([[0, 257, 32768, 65535]], np.uint16)
    expected = torch.from_numpy(values / 65535).float().expand(3, 1, 4)
    for suffix in ("png", "tif"):
        Image.fromarray(values).save(tmp_path / f"a.{suffix}")
        check(load_image(tmp_path / f"a.{suffix}"), expected)
    check(load_image(Image.fromarray(values.astype(np.int32))), expected)
    check(load_image(Image.fromarray((values / 65535).astype(np.float32))), expected)
    with pytest.raises(InputError, match="70000"):
        load_image(Image.fromarray(np.array([[70000]], np.int32)))
    with pytest.raises(InputError, match=r"\[0, 1\]"):
        load_image(Image.fromarray(np.array([[12.0]], np.float32)))


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (1, 3), (3, 1), (3, 3)])
def test_the_smallest_images(tmp_path, shape):
    array = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    Image.fromarray(array).save(tmp_path / "a.png")
    check(load_image(tmp_path / "a.png"), canonical(array))
    check(load_image(array), canonical(array))
    check(load_image(torch.from_numpy(array).permute(2, 0, 1)), canonical(array))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((3, 8, 9), np.uint8), r"shape \(H, W, 3\).*shape \(3, 8, 9\).*transpose\(1, 2, 0\)"),
        (torch.zeros(8, 9, 3), r"shape \(3, H, W\).*shape \(8, 9, 3\).*permute\(2, 0, 1\)"),
        (np.zeros((2, 8, 9, 3), np.uint8), r"image\[0\]"),
        (torch.zeros(2, 3, 8, 9), r"image\[0\]"),
        (np.zeros((8, 9, 7), np.uint8), "choose three"),
        (np.zeros((0, 9, 3), np.uint8), "not empty"),
        (torch.zeros(3, 0, 4), "not empty"),
        (np.zeros((), np.uint8), r"shape \(\)"),
        (np.full((4, 4, 3), 200.0), r"values 200 to 200; try dividing by 255"),
        (torch.full((3, 4, 4), 200.0), "dividing by 255"),
        (torch.tensor([[-2.1, 2.6]]), "normalisation"),
        (np.zeros((4, 4, 3), np.uint16), "uint16.*8 bit"),
        (np.zeros((4, 4, 3), bool), "bool"),
        (torch.zeros(3, 4, 4, dtype=torch.int64), "int64"),
        (
            np.array([[0.5, np.nan], [np.inf, 0.1]]),
            r"1 NaN and 1 infinite values.*\(channel, row, column\) = \(0, 0, 1\)",
        ),
        ([1, 2], "list; try passing images one by one"),
        (None, "NoneType"),
        (b"bytes", "bytes"),
    ],
)
def test_bad_arrays_say_expected_got_try(image, message):
    with pytest.raises(InputError, match=message) as caught:
        load_image(image)
    assert str(caught.value).startswith("expected ") and "; got " in str(caught.value) and "; try " in str(caught.value)


def jpeg(path, side=64):
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path.read_bytes()


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "bmp"])
def test_truncated_files_are_refused(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    whole = jpeg(path)
    path.write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(InputError) as caught:
        load_image(path)
    assert f"a.{suffix}" in str(caught.value) and "\n" not in str(caught.value)


def test_damaged_headers_are_refused(tmp_path):
    whole = jpeg(tmp_path / "a.jpg")
    rng = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(whole[:1500])
        for position in rng.integers(2, 700, 12):
            damaged[position] = rng.integers(0, 256)
        (tmp_path / "b.jpg").write_bytes(damaged)
        with pytest.raises(InputError):
            load_image(tmp_path / "b.jpg")


def test_files_that_are_no_images(tmp_path):
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(InputError, match="0 bytes"):
        load_image(tmp_path / "empty.jpg")
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(InputError, match="not an image"):
        load_image(tmp_path / "text.png")
    with pytest.raises(InputError, match="folder"):
        load_image(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        load_image(tmp_path / "none.png")
    with pytest.raises(InputError, match="downloading"):
        load_image("https://example.com/a.png")


def png_header(width, height):
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    )


def test_decompression_bombs_are_refused_before_decoding(tmp_path):
    (tmp_path / "bomb.png").write_bytes(png_header(60_000, 60_000))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError, match=r"at most 536,870,912 pixels; got 60000 x 60000.*MAX_IMAGE_PIXELS"):
            load_image(tmp_path / "bomb.png")


def test_large_scans_are_allowed_although_pillow_would_refuse_them(tmp_path):
    (tmp_path / "scan.png").write_bytes(png_header(20_000, 20_000))
    before = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with inputs.open_image(tmp_path / "scan.png") as image:
            assert image.size == (20_000, 20_000)
    assert before == Image.MAX_IMAGE_PIXELS


def test_the_pixel_limit_can_be_set_and_lifted(tmp_path, monkeypatch, pixels):
    Image.fromarray(pixels).save(tmp_path / "a.png")
    monkeypatch.setattr(inputs, "MAX_IMAGE_PIXELS", 34)
    for image in (tmp_path / "a.png", Image.fromarray(pixels)):
        with pytest.raises(InputError, match="at most 34 pixels; got 5 x 7"):
            load_image(image)
    monkeypatch.setattr(inputs, "MAX_IMAGE_PIXELS", None)
    assert load_image(tmp_path / "a.png").shape == (3, 7, 5)


def test_pillows_own_limit_is_back_after_threads(tmp_path, monkeypatch, pixels):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 12345)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    threads = [threading.Thread(target=load_image, args=(tmp_path / "a.png",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Image.MAX_IMAGE_PIXELS == 12345


def test_the_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    check(load_image(tmp_path / "a.gif"), torch.tensor([1.0, 0, 0])[:, None, None].expand(3, 4, 4).contiguous())


def test_metadata_does_not_disturb(tmp_path, pixels):
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "x" * 1000)
    Image.fromarray(pixels).save(tmp_path / "a.png", pnginfo=info, exif=b"Exif\0\0not exif at all")
    check(load_image(tmp_path / "a.png"), canonical(pixels))


def test_formats_that_run_programs_are_not_opened(tmp_path, monkeypatch):
    """PostScript is a program, and Pillow gives it to Ghostscript, whatever the file is called."""
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_: pytest.fail("ran Ghostscript"))
    Image.new("RGB", (4, 4)).save(tmp_path / "photo.png", "EPS")
    with pytest.raises(InputError, match="not an image in a format that is read"):
        load_image(tmp_path / "photo.png")


def test_colours_multiplied_by_their_alpha(pixels):
    alpha = Image.fromarray(np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)]))
    check(load_image(alpha.convert("RGBa")), canonical(pixels))
    grey = Image.fromarray(pixels[:, :, 0])
    check(load_image(grey.convert("LA").convert("La")), canonical(np.stack([pixels[:, :, 0]] * 3, -1)))


@pytest.mark.filterwarnings("ignore")  # torch's, about what it may drop
@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: torch.rand(3, 4, 4).to_sparse(), "sparse_coo"),
        (lambda: torch.empty(3, 4, 4, device="meta"), "meta"),
        (lambda: torch.nested.nested_tensor([torch.rand(2, 4), torch.rand(1, 4)]), "nested"),
    ],
)
def test_tensors_that_are_not_dense(make, kind):
    with pytest.raises(InputError, match=f"a torch image as a dense tensor; got {kind}"):
        load_image(make())


def test_float64_beyond_float32_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError, match="1 infinite"):
            load_image(np.array([[1e300, 0.5]]))


@pytest.mark.parametrize("path", ["x" * 5000, "a\0b", "x" * 300 + ".png"])
def test_paths_that_the_system_refuses(path):
    with pytest.raises(InputError, match="checking the path"):
        load_image(path)


def test_an_unturned_image_is_not_copied(tmp_path, pixels):
    image = Image.fromarray(pixels)
    assert inputs.decode(image, "image") is image
    assert load_image(image).data_ptr() != np.asarray(image).ctypes.data and np.array_equal(np.asarray(image), pixels)
