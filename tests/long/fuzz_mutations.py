"""Good bytes → bad bytes: blind changes, and changes that keep a file's outer form, which get past the first check."""

import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np

from .fuzz_readers import labels, logits, npy, npy_claim, npz, png_header

Mutation = Callable[[Random, bytes], bytes]

NUMBERS = (0, -1, 1, 2, 7, 255, 256, 65535, 65537, 2**31, 2**32, 2**63, -(2**63), 2**64, 10**30, 0.5, 1e308, -0.0)
ODD: tuple[Any, ...] = (
    None, True, False, "", "x", "é\ud800", "\x1b[31m", "a\nb", "9" * 400, [], {}, [[]], [None], {"": 0}, "logits",
    "features", float("nan"), float("inf"), float("-inf"), [1] * 70, [4] * 6, list(range(9)),
)  # fmt: skip
ENDS = (b"", b"\0", b"\xff" * 8, b"PK\x05\x06" + bytes(18), b"\x89PNG\r\n\x1a\n", b"\xff\xd9", b"IEND\xaeB`\x82")
MAGIC = (
    b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0\0\x10JFIF\0", b"GIF89a", b"RIFF\x10\0\0\0WEBPVP8 ", b"II*\0\x08\0\0\0",
    b"MM\0*\0\0\0\x08", b"BM", b"P6\n", b"P5 9 9 255\n", b"\x93NUMPY\x01\0", b"\x93NUMPY\x02\0", b"\x93NUMPY\x03\0",
    b"PK\x03\x04", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"\x80\x04]", b"\0\0\x01\0", b"8BPS\0\x01",
    b"\0\0\0\x0cjP  \r\n\x87\n", b"\0\0\0\x1cftypavif", b"SIMPLE  =                    T", b"DDS |\0\0\0", b"qoif",
)  # fmt: skip


def blind(rng: Random, data: bytes) -> bytes:
    """A few changes anywhere: bits, bytes, whole numbers, cuts, copies."""
    content = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        place = rng.randrange(len(content) + 1)
        some = rng.randrange(1, 33)
        match rng.randrange(8):
            case 0 if place < len(content):
                content[place] ^= 1 << rng.randrange(8)
            case 1 if place < len(content):
                content[place] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
            case 2:
                number = rng.choice((0, 1, 2**15, 2**16 - 1, 2**31 - 1, 2**32 - 1, rng.randrange(2**32)))
                content[place : place + 4] = struct.pack(rng.choice("<>") + "I", number)
            case 3:
                del content[place : place + some]
            case 4:
                content[place:place] = content[place : place + some]
            case 5:
                content[place:place] = rng.randbytes(some)
            case 6:
                content[place : place + some] = rng.randbytes(some)
            case _:
                content = content[:place]
    return bytes(content)


def cut(rng: Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def random_after_magic(rng: Random, data: bytes) -> bytes:
    start = rng.choice((*MAGIC, data[: rng.randrange(1, 40)]))
    return start + rng.randbytes(rng.randrange(400)) + rng.choice(ENDS)


def json_change(rng: Random, data: bytes) -> bytes:
    """JSON that still is JSON, nearly always: values, keys and shapes changed."""
    try:
        value = json.loads(data)
    except ValueError:
        return blind(rng, data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        value = _changed(rng, value)
    text = json.dumps(value)
    match rng.randrange(14):
        case 0:
            depth = rng.choice((50, 1500, 100_000))
            text = text.replace("{", '{"x":' + "[" * depth + "]" * depth + ",", 1)
        case 1:
            text = text.replace("1", "1" * rng.choice((5, 5000)), 1)
        case 2:
            text = "\ufeff" + text
        case 3:
            return text.encode(rng.choice(("utf-16", "utf-32", "utf-7")))
    return text.encode("utf-8", "replace")


def _changed(rng: Random, value: Any) -> Any:
    hostile = rng.choice((rng.choice(NUMBERS), rng.choice(ODD), rng.choice(ODD)))
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        match rng.randrange(6):
            case 0:
                return {name: one for name, one in value.items() if name != key}
            case 1:
                return value | {rng.choice(("x", "\x1b]0;", "__class__", key + " ", "a\n")): hostile}
            case _:
                return value | {key: _changed(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.8:
        index = rng.randrange(len(value))
        match rng.randrange(4):
            case 0:
                return value[:index]
            case 1:
                return value * rng.choice((2, 40))
            case _:
                return [*value[:index], _changed(rng, value[index]), *value[index + 1 :]]
    if isinstance(value, int | float) and not isinstance(value, bool) and rng.random() < 0.4:
        return rng.choice((-value, value + 1, value * 2, value // 2, float(value), str(value)))
    return hostile


def tensor_header(rng: Random, data: bytes) -> bytes:
    """A safetensors file with a changed header of the right length."""
    length = int.from_bytes(data[:8], "little")
    header = json_change(rng, data[8 : 8 + length])
    claimed = rng.choice((len(header),) * 6 + (len(header) + 1, 0, 2**40, 2**63))
    return claimed.to_bytes(8, "little") + header + data[8 + length :]


def png_chunks(rng: Random, data: bytes) -> bytes:
    """A PNG with changed chunks and right checksums."""
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        return blind(rng, data)
    chunks, place = [], 8
    while place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    index = rng.randrange(len(chunks))
    kind, content = chunks[index]
    match rng.randrange(6):
        case 0:
            chunks[index] = (kind, blind(rng, content))
        case 1:
            chunks.insert(index, chunks[rng.randrange(len(chunks))])
        case 2:
            del chunks[index]
        case 3:
            header = struct.pack(">II", rng.choice((0, 1, 5, 2**20, 2**31 - 1)), rng.choice((0, 1, 3, 40000)))
            chunks[0] = (b"IHDR", header + bytes(rng.choice((0, 1, 2, 3, 4, 6, 8, 16)) for _ in range(5)))
        case 4:
            name = rng.choice((b"tRNS", b"PLTE", b"eXIf", b"iCCP", b"zTXt", b"acTL", b"fcTL", b"gAMA", b"iTXt"))
            chunks.insert(rng.randrange(1, len(chunks) + 1), (name, rng.randbytes(rng.randrange(60))))
        case _:
            pixel_data = zlib.compress(bytes(rng.randrange(2000)))
            chunks = [(kind, pixel_data if kind == b"IDAT" else content) for kind, content in chunks]
    parts = [
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    ]
    return data[:8] + b"".join(parts)


def bomb_header(rng: Random, data: bytes) -> bytes:
    sides = (0, 1, 30_000, 100_000, 2**31 - 1, 2**32 - 1)
    return png_header(rng.choice(sides), rng.choice(sides[2:]), rng.choice((1, 8, 16)), rng.choice((0, 2, 3, 6)))


def npy_member(rng: Random, data: bytes) -> bytes:
    """An .npy of any kind, most of which are no prediction."""
    shapes = (
        (), (0,), (4,), (-1, 4), (3, -1, 4), (3, 6, 8), (6, 8), (3, 0, 8), (2**31, 2**31), (2**62, 4), (1,) * 40,
        (10**12,), (3, 6, 8.5), "x", (True, 8), (99999, 99999, 9),
    )  # fmt: skip
    types = (
        "<f4", ">f8", "<f2", "<i8", "|u1", "|b1", "<u8", "|O", "|V0", "|S0", "<U3", "<c8", "<M8[s]", "|V9", "f", "x",
        [("a", "<f4")], [("a", "|O")], "<f16", 5, "('f4',3)", "f4,f4",
    )  # fmt: skip
    match rng.randrange(6):
        case 0:
            body = rng.randbytes(rng.choice((0, 10, 576, 2000)))
            return npy_claim(rng.choice(shapes), rng.choice(types), rng.choice((False, True, None)), body)
        case 1:
            depth = rng.choice((10, 150, 3000))
            deep = "(" * depth + ")" * depth if rng.random() < 0.5 else "-" * depth + "1"
            header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {deep}}}\n".encode()
            return b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header
        case 2:
            values = logits().astype(rng.choice((np.float16, np.float64, np.complex64, np.int8, np.uint8, np.uint64)))
            values.flat[rng.randrange(values.size)] = (
                rng.choice((np.nan, np.inf, 1e4)) if values.dtype.kind == "f" else 9
            )
            return npy(values)
        case 3:
            ids = labels().astype(rng.choice((np.int64, np.uint64, np.int16, np.float32)))
            ids[0, :] = rng.choice((200, 99, 7)) if rng.random() < 0.5 else ids.dtype.type(rng.choice((30000, 1e4, 70)))
            ids[1, :] = rng.choice((0, -1, -300)) if ids.dtype.kind in "if" else np.uint64(2**64 - 1)
            return npy(ids)
        case 4:
            return npy(np.array([{"a": 1}, None, [1]], dtype=object).reshape(rng.choice(((3,), (1, 3), (3, 1, 1)))))
        case _:
            return npy(rng.choice((np.zeros(3), logits()[None], np.array(["a", "b"]), logits()[:, :0], logits()[0])))


def npz_member(rng: Random, data: bytes) -> bytes:
    """An archive whose members are not what their names say."""
    names = (
        "logits.npy",
        "logits",
        "probs.npy",
        "labels.npy",
        "labels",
        "masks.npy",
        "x.npy",
        "../logits.npy",
        "\n",
        "a/",
    )
    members = {}
    for _ in range(rng.choice((1, 1, 2, 3))):
        content = rng.choice((npy_member(rng, data), rng.randbytes(90), b"", npy(logits()), npy(labels())))
        members[rng.choice(names)] = content
    archive = npz(members, rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)))
    return blind(rng, archive) if rng.random() < 0.4 else archive


_JSON, _IMAGE = (json_change, json_change, json_change, blind), (blind, blind, cut, random_after_magic, png_chunks)
MUTATIONS: dict[str, tuple[Mutation, ...]] = {
    "config": _JSON,
    "classes": _JSON,
    "safetensors": (tensor_header, tensor_header, blind, cut),
    "image": (*_IMAGE, bomb_header),
    "npy": (npy_member, npy_member, blind, cut),
    "npz": (npz_member, npz_member, blind, cut),
    "label_png": (*_IMAGE, bomb_header),
    "stack": (npz_member, npz_member, blind, cut),
    "upload_image": (*_IMAGE, bomb_header),
    "upload_png": (*_IMAGE, bomb_header),
    "upload_npy": (npy_member, npy_member, blind, cut, random_after_magic),
    "upload_npz": (npz_member, npz_member, blind, cut, random_after_magic),
}


def bad_bytes(kind: str, index: int, seeds: list[bytes]) -> bytes:
    """Number `index` of a kind, always the same."""
    rng = Random(f"{kind} {index}")
    return rng.choice(MUTATIONS[kind])(rng, rng.choice(seeds))
