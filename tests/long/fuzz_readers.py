"""What reads strangers' bytes: every reader of the package with a few small seeds, and what must hold of any bytes.

Bytes either give an answer that is whole, or an InputError that says expected, got, try in one printable line. Anything
else that is raised is a defect. Used by the long test, the light one, and `fuzz_atheris.py`.
"""

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

from ddps.app.uploads import Limits, read_upload
from ddps.config import BackboneConfig, DDPSConfig, FeaturesNetwork, LabelSpace
from ddps.datasets import read_classes
from ddps.errors import InputError
from ddps.hub import expected_tensors, read_config
from ddps.inputs import load_image
from ddps.predictions import load_prediction
from ddps.refiner import build_network
from ddps.stack_inputs import load_stack, read_stack
from ddps.tensor_file import read_tensors

LONGEST_LINE = 2000
SIZE = (6, 8)
WEIGHTS = {"conv.weight": torch.arange(8.0).reshape(2, 2, 2), "count": torch.tensor(7), "log_table": torch.zeros(3)}
FORMATS = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp", "TIFF": ".tif", "BMP": ".bmp", "GIF": ".gif", "PPM": ".ppm"}


@dataclass(frozen=True)
class Reader:
    """Attributes:
    suffix: of the file that the bytes are written to.
    seeds: makes good files.
    read: reads a file; raises InputError, or AssertionError where the answer is not whole.
    """

    suffix: str
    seeds: Callable[[], list[bytes]]
    read: Callable[[Path], object]


def accepts(reader: Reader, data: bytes, folder: Path) -> bool:
    """Whether these bytes gave an answer; False for a refusal that says what it should."""
    path = folder / f"input{reader.suffix}"
    path.write_bytes(data)
    try:
        reader.read(path)
    except InputError as error:
        check_refusal(error)
        return False
    return True


def check_refusal(error: InputError) -> None:
    text = str(error)
    assert text.startswith("expected ") and "; got " in text and "; try " in text, text
    assert text.isprintable() and len(text) <= LONGEST_LINE, ascii(text)


def pixels(mode: str = "RGB", size: tuple[int, int] = SIZE) -> Image.Image:
    """A small picture of a mode, with some structure."""
    rng = np.random.default_rng(0)
    if mode.startswith("I;16"):
        return Image.fromarray(rng.integers(0, 65536, size, dtype=np.uint16))
    return Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).convert(mode)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def image_files() -> list[bytes]:
    """A file of every common format, and of every odd mode."""
    turned = Image.Exif()
    turned[0x0112] = 6
    found = [encoded(pixels(), kind) for kind in FORMATS]
    found += [encoded(pixels(mode), "PNG") for mode in ("1", "L", "LA", "P", "RGBA", "I;16")]
    found += [encoded(pixels("CMYK"), "JPEG"), encoded(pixels(), "JPEG", exif=turned, progressive=True)]
    found += [encoded(pixels("CMYK"), "TIFF"), encoded(pixels(), "TIFF", compression="tiff_lzw")]
    found += [encoded(pixels(size=(1, 9)), "PNG"), encoded(pixels("RGBA"), "WEBP", lossless=True)]
    return found


def png_header(width: int, height: int, depth: int = 8, colour: int = 2) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(bytes(64)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)  # a hostile one may hold objects
    return file.getvalue()


def npy_claim(shape: object, descr: object = "<f4", order: object = False, body: bytes = b"") -> bytes:
    """An .npy with a header of one's own."""
    header = repr({"descr": descr, "fortran_order": order, "shape": shape}).encode("utf-8", "replace") + b"\n"
    return b"\x93NUMPY\x02\x00" + struct.pack("<I", len(header)) + header + body


def npz(members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def logits(channels: int = 3) -> np.ndarray:
    return 3 * np.random.default_rng(1).normal(size=(channels, *SIZE)).astype(np.float32)


def labels() -> np.ndarray:
    return logits().argmax(0).astype(np.uint8)


def npy_files() -> list[bytes]:
    return [npy(logits()), npy(logits().astype(np.float16)), npy(labels()), npy(logits(1)), npy(labels() > 0)]


def npz_files() -> list[bytes]:
    probs = np.exp(logits()) / np.exp(logits()).sum(0)
    found = {"logits": logits(), "probs": probs, "labels": labels()}
    return [npz({f"{key}.npy": npy(value)}) for key, value in found.items()] + [npz({"logits.npy": npy(logits())}, 0)]


def png_files() -> list[bytes]:
    palette = Image.fromarray(labels(), "P")
    palette.putpalette(list(range(255)) * 3)
    maps = [Image.fromarray(labels()), Image.fromarray(labels().astype(np.uint16)), palette, pixels("1")]
    return [encoded(one, "PNG") for one in maps]


def config_files() -> list[bytes]:
    whole = DDPSConfig(
        labels=LabelSpace(2, ("sky", "grass"), ((0, 0, 0), (9, 9, 9)), void_first=True),
        network=FeaturesNetwork(in_channels=(8, 8), channels=8, dim=8, out_dim=8, num_classes=3, dim_mults=(1,)),
        backbone=BackboneConfig(embed_dims=(8, 8), depths=(1, 1), num_heads=(1, 2), sr_ratios=(2, 1),
                                patch_sizes=(7, 3), strides=(4, 2)),
    )  # fmt: skip
    older = json.loads(DDPSConfig().to_json()) | {"format_version": 1}
    texts = [DDPSConfig(name="tiny").to_json(), whole.to_json(), json.dumps(older)]
    return [text.encode() for text in texts]


def classes_files() -> list[bytes]:
    known = {"classes": ["road", "sky"], "num_classes": 2, "ignore_index": 255}
    return [json.dumps(known).encode(), json.dumps({"num_classes": 5}).encode()]


def _read_config(path: Path) -> None:
    config = read_config(path)
    assert DDPSConfig.from_json(config.to_json()) == config
    expected_tensors(build_network, config)


def _read_tensors(path: Path) -> None:
    loaded = read_tensors(path, WEIGHTS)
    for name, like in WEIGHTS.items():
        assert (loaded[name].shape, loaded[name].dtype) == (like.shape, like.dtype)
        assert not loaded[name].isnan().any()


def _read_image(path: Path) -> None:
    values = load_image(path)
    assert values.dtype == torch.float32 and values.ndim == 3 and values.shape[0] == 3 and values.numel()
    assert values.is_contiguous() and 0 <= float(values.min()) <= float(values.max()) <= 1


def _read_prediction(path: Path) -> None:
    known = load_prediction(path, SIZE)
    probs, own = known.probs(), known.argmax()
    assert probs.shape == (known.num_classes, *SIZE) and own.shape == SIZE
    torch.testing.assert_close(probs.sum(0), torch.ones(SIZE), atol=1e-4, rtol=0)
    assert float(probs.min()) >= 0
    assert bool((((own >= 0) & (own < known.num_classes)) | (own == known.ignore_index)).all())


def _read_stack(path: Path) -> None:
    values, kind = read_stack(path)
    stack = load_stack(values, kind, SIZE)
    assert stack.native.ndim == 3 and torch.isfinite(stack.native.float()).all()


def _read_uploads(path: Path) -> None:
    """Bytes as the image, and as the prediction of a good image: a file of the page's visitors is either."""
    photo, known = path.parent / "good.png", path.parent / "good_known.png"
    if not known.exists():
        photo.write_bytes(encoded(pixels(), "PNG"))
        known.write_bytes(png_files()[0])
    limits = Limits(pixels=1 << 16, values=1 << 16, file_bytes=1 << 20)
    upload = (
        read_upload(path, known, limits=limits) if path.suffix == ".jpg" else read_upload(photo, path, limits=limits)
    )
    assert upload.pixels.shape[0] == 3 and upload.photo.size[0] >= 1
    probs = upload.known.probs()
    assert torch.isfinite(probs).all() and probs.shape[1:] == upload.pixels.shape[1:]


READERS = {
    "config": Reader(".json", config_files, _read_config),
    "classes": Reader(".json", classes_files, read_classes),
    "safetensors": Reader(
        ".safetensors", lambda: [save(WEIGHTS), save({}), save({"a": torch.zeros(1)})], _read_tensors
    ),
    "image": Reader(".png", image_files, _read_image),
    "npy": Reader(".npy", npy_files, _read_prediction),
    "npz": Reader(".npz", npz_files, _read_prediction),
    "label_png": Reader(".png", png_files, _read_prediction),
    "stack": Reader(".npz", lambda: [npz({"masks.npy": npy(logits() > 0)}), *npz_files()[:2]], _read_stack),
    "upload_image": Reader(".jpg", image_files, _read_uploads),
    "upload_png": Reader(".png", png_files, _read_uploads),
    "upload_npy": Reader(".npy", npy_files, _read_uploads),
    "upload_npz": Reader(".npz", npz_files, _read_uploads),
}
