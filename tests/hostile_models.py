"""Model folders of a stranger who means harm, and what it costs to refuse each: run as a script, one JSON per line."""

import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from ddps import DDPSConfig
from ddps.config import BackboneConfig, FeaturesNetwork, LogitsNetwork

Change = Callable[[Path], object]
# every value at its own bound, together 3.8 · 10^12 weights
WIDEST = FeaturesNetwork(
    in_channels=(16384,) * 8,
    channels=4096,
    embed_dim=4096,
    dim=4096,
    dim_mults=(16,) * 8,
    out_dim=4096,
    num_classes=65536,
)
DEEPEST = BackboneConfig(
    embed_dims=(8,) * 8,
    depths=(128,) * 8,
    num_heads=(8,) * 8,
    sr_ratios=(1,) * 8,
    patch_sizes=(3,) * 8,
    strides=(2,) * 8,
)


def _config(**parts: object) -> Change:
    # past the checks of the dataclass, as a stranger's editor would
    data = json.loads(DDPSConfig().to_json()) | {
        name: json.loads(json.dumps(part, default=vars)) for name, part in parts.items()
    }
    return lambda folder: (folder / "config.json").write_text(json.dumps(data))


def _text(text: str) -> Change:
    return lambda folder: (folder / "config.json").write_text(text)


def _header(header: str, claimed: int | None = None, data: bytes = b"") -> Change:
    def write(folder: Path) -> None:
        raw = header.encode()
        length = len(raw) if claimed is None else claimed
        (folder / "model.safetensors").write_bytes(length.to_bytes(8, "little") + raw + data)

    return write


def _entry(name: str, shape: list[int], start: int, end: int) -> str:
    return json.dumps({name: {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}})[1:-1]


NAMES = ",".join(_entry(str(index), [0], 0, 0) for index in range(2_000_000 // 60))
HOSTILE: dict[str, Change] = {
    "config: 15 TB of weights": _config(network=WIDEST),
    "config: levels 4096 wide": _config(network=replace(FeaturesNetwork(), dim=4096)),
    "config: levels 65536 wide": _config(network=replace(FeaturesNetwork(), dim=4096, dim_mults=(16,))),
    "config: an encoder of 1024 blocks": _config(
        network=replace(FeaturesNetwork(), in_channels=DEEPEST.embed_dims), backbone=DEEPEST
    ),
    "config: 980 million weights, and a file of 2 MB": _config(
        network=replace(FeaturesNetwork(), dim=896, dim_mults=(1, 2, 2))
    ),
    "config: the widest network on logits, 640 million weights": _config(
        network=LogitsNetwork(image_widths=(1024,) * 6, slot_widths=(1024,) * 6)
    ),
    "config: widths of 10^18": _config(network={**vars(LogitsNetwork()), "image_widths": [10**18] * 4}),
    "config: 340,000 empty lists": _text("[" + "[]," * 340_000 + "[]]"),
    "config: 340,000 empty objects": _text('{"a": [' + "{}," * 340_000 + "{}]}"),
    "config: 20 MB": _text(" " * 20_000_000),
    "config: nested 500,000 deep": _text("[" * 500_000),
    "config: a number of a million digits": _text('{"format_version": ' + "9" * 1_000_000 + "}"),
    "config: 80,000 keys, one twice": _text("{" + "".join(f'"{i}":1,' for i in range(80_000)) + '"79999":2}'),
    "header: 2 MB of names": _header("{" + NAMES + "}"),
    "header: longer than the file": _header("{}", 10**15),
    "header: as long as 64 bits say": _header("{}", 2**64 - 1),
    "header: nested deep": _header("[" * 60_000),
    "header: tensors of 4 TB": _header("{" + _entry("stem", [10**12], 0, 4 * 10**12) + "}", data=b"\0" * 16),
    "header: a name twice": _header("{" + _entry("a", [0], 0, 0) + "," + _entry("a", [1], 0, 4) + "}", data=b"\0" * 4),
    "header: 200 kB of names": _header("{" + NAMES[: NAMES.rindex(',"', 0, 200_000)] + "}"),
}


def refusals(folder: Path) -> Iterator[dict[str, object]]:
    """What each hostile folder gives: the error, milliseconds, and MiB above what the process had before."""
    from ddps import DDPSRefiner, InputError
    from ddps.refiner import build_network

    DDPSRefiner(DDPSConfig(), build_network(DDPSConfig()), "cpu").save_pretrained(folder)
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    DDPSRefiner.from_pretrained(folder, device="cpu")
    for name, change in HOSTILE.items():
        for file, data in whole.items():
            (folder / file).write_bytes(data)
        change(folder)
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        before, start = _status("VmRSS"), time.perf_counter()
        try:
            DDPSRefiner.from_pretrained(folder, device="cpu")
            said = ""
        except InputError as error:
            said = str(error)
        milliseconds = 1000 * (time.perf_counter() - start)
        yield {"name": name, "said": said, "ms": milliseconds, "MiB": (_status("VmHWM") - before) / 1024}


def _status(field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


if __name__ == "__main__":
    for row in refusals(Path(sys.argv[1])):
        print(json.dumps(row), flush=True)
