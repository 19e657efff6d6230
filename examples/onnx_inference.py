"""`DDPSRefiner.refine` without torch: onnxruntime, numpy, and pillow to read files.

    pip install "ddps[onnx]" && ddps export -o model.onnx      # once, where torch is
    pip install onnxruntime numpy pillow                       # where it runs
    python examples/onnx_inference.py model.onnx photo.jpg logits.npz -o mask.png

The file holds one denoising step; here is the loop around it, for one image in one tile and for logits or probabilities
(K, h, w) at any resolution. The noise is torch's own, number by number, so that the same seed gives the same mask.
"""

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


@dataclass(frozen=True)
class View:
    """A tile at one size: what the network sees of it, padded to its stride."""

    image: np.ndarray  # (1, 3, H, W)
    slots: np.ndarray  # (1, S, H, W)
    height: int  # before padding
    width: int

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) of the mask, with padding."""
        return self.image.shape[2] // 2, self.image.shape[3] // 2


class Refiner:
    """Refines one image at a time with the step in an ONNX file; its metadata says how.

    Args:
        path: what `ddps export` wrote.
        threads: of onnxruntime; 0 for all cores.
    """

    def __init__(self, path: str | Path, threads: int = 0):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.facts = json.loads(self.session.get_modelmeta().custom_metadata_map["ddps"])
        self.defaults, self.alpha_bar = self.facts["config"]["inference"], self.facts["alpha_bar"]
        self.named = any(value.name == "classes" for value in self.session.get_inputs())

    def refine(
        self, image: np.ndarray, prediction: np.ndarray, kind: str, steps: int | None = None, seed: int = 0
    ) -> tuple[np.ndarray, np.ndarray]:
        """(H, W) labels and (K, H, W) probabilities.

        Args:
            image: (H, W, 3) uint8, RGB.
            prediction: (K, h, w) logits or probabilities; K = 1 is a sigmoid foreground.
            kind: "logits" or "probs".
            steps: passes of the network; None for the model's own number.
            seed: of the noise.
        """
        pixels = image.transpose(2, 0, 1).astype(np.float32) / np.float32(255)
        size = pixels.shape[1:]
        native = prediction.astype(np.float32)
        if kind == "probs":
            native = np.clip(native, 0, 1)
            native = np.concatenate([1 - native, native]) if len(native) == 1 else native / native.sum(0)
        elif len(native) == 1:
            native = np.concatenate([np.zeros_like(native), native])
        classes, own, several = self.slots_of(native, size, kind)
        everything = resized(native, size)
        everything = softmax(everything) if kind == "logits" else everything
        if not several or own.max(0).min() > self.facts["slots"]["sure"]:
            return everything.argmax(0), everything  # nothing to refine
        times = self.times(steps)
        seen = self.look_around(pixels, native, kind, classes, own, times, seed)
        refined = self.chain(pixels, own, classes, times, seed, seen)
        least, mix, hedge = np.float32(self.facts["least"]), self.defaults["mix"], self.defaults["hedge"]
        # log-linear pool with the segmentor's own probabilities
        logs = [np.log(np.maximum(values, least)) for values in (own, refined)]
        mixed = softmax(logs[0] + np.float32(mix) * (logs[1] - logs[0])) if mix < 1 else refined
        labels = spread(mixed, everything, classes).argmax(0)
        probs = spread(mixed + np.float32(hedge) * (own - mixed), everything, classes)
        return labels, make_likeliest(labels, probs)

    def times(self, steps: int | None) -> list[int]:
        """Network times of the chain, 0 (noisiest) to T-1."""
        most = len(self.alpha_bar)
        steps = min(self.defaults["steps"], most) if steps is None else steps
        if steps == 1 or self.defaults["sampler"] == "single":
            return [0]
        return [*range(0, most // steps * (steps - 1), most // steps), most - 1]

    def slots_of(self, native: np.ndarray, size: tuple[int, ...], kind: str) -> tuple[np.ndarray, np.ndarray, bool]:
        """The classes that get a slot, by falling mass; (S, H, W) probabilities of them, and of the rest if there is
        one; and whether there are several classes at all."""
        rules, shares = self.facts["slots"], softmax(native) if kind == "logits" else native
        mass, peak = shares.mean((1, 2)), shares.max((1, 2))
        order = np.argsort(-mass, kind="stable")
        kept = order[(mass[order] > rules["negligible_mass"]) | (peak[order] > rules["nowhere_likely"])]
        kept = kept[: rules["most"]] if len(kept) > 1 else order[:2]
        other = bool(np.delete(mass, kept).any())
        kept = kept[: rules["most"] - 1] if other else kept
        minor = peak < rules["negligible_peak"]
        return kept, grouped(native, kept, other, minor, size, kind), int((peak > 0).sum()) > 1

    def look_around(
        self,
        pixels: np.ndarray,
        native: np.ndarray,
        kind: str,
        classes: np.ndarray,
        own: np.ndarray,
        times: list[int],
        seed: int,
    ) -> np.ndarray | None:
        """The first pass over a large image, made several times smaller: (S, h, w) log-probabilities at stride 2.

        None for a small image, whose first pass sees it as it is.
        """
        rules, size = self.facts["context"], pixels.shape[1:]
        factor = min(rules["most"], round(min(size) / rules["short_side"]))
        if factor < 2 or len(times) == 1 or not self.defaults["working_size"]:
            return None
        small = pooled(pixels, factor)
        every = max(1, min(native.shape[1] // small.shape[1], native.shape[2] // small.shape[2]))
        coarse = native[:, every // 2 :: every, every // 2 :: every]
        its_classes, its_own, several = self.slots_of(coarse, small.shape[1:], kind)
        if not several:
            return None
        answer = self.chain(small, its_own, its_classes, [0], seed, None, zoom=1.0)
        grid = tuple(-(-side // 2) for side in size)
        axes = [
            hats((2 * np.arange(count) + 1) / factor, side) for count, side in zip(grid, small.shape[1:], strict=True)
        ]
        wide = axes[0] @ answer.astype(np.float16).astype(np.float32) @ axes[1].T
        shares, least = pooled(own, 2), np.float32(rules["least"])
        rest = np.zeros(grid, np.float32)
        if len(its_own) > len(its_classes):
            left = axes[0] @ its_own[-1].astype(np.float16).astype(np.float32) @ axes[1].T
            rest = wide[-1] / np.maximum(left, least)
        place = {k: s for s, k in enumerate(its_classes)}
        planes = [wide[place[k]] if k in place else np.minimum(shares[s] * rest, 1) for s, k in enumerate(classes)]
        if len(own) > len(classes):
            planes.append(np.maximum(1 - np.stack(planes).sum(0), 0))
        return np.log(np.maximum(np.stack(planes), least))

    def chain(
        self,
        pixels: np.ndarray,
        own: np.ndarray,
        classes: np.ndarray,
        times: list[int],
        seed: int,
        seen: np.ndarray | None,
        zoom: float | None = None,
    ) -> np.ndarray:
        """(S, H, W) refined probabilities: the sampler `free`.

        Its first answer is `seen`, where there is one; else the first of several passes is at the image's own size.
        """
        size = pixels.shape[1:]
        if zoom is None:
            zoom = min(self.facts["most_zoom"], max(1.0, self.defaults["working_size"] / min(size)))
        last = self.view(pixels, own, zoom)
        first = self.view(pixels, own, 1.0) if zoom > 1 and len(times) > 1 and seen is None else last
        noise = Noise(seed, self.facts["config"]["schedule"]["kernel"])
        labels = pooled(last.slots[0], 2).argmax(0)
        finished: dict[int, np.ndarray] = {}
        for index, i in enumerate(times):
            view = last if index else first
            mask = noise.sample(labels, self.alpha_bar[len(self.alpha_bar) - 1 - i], len(own))
            if index == 0 and seen is not None:
                coarse = on_grid(seen, last)
                rows, columns = (linear(side, 2 * side, False) for side in last.grid)
                finished[0] = (rows @ coarse @ columns.T)[:, : size[0], : size[1]]
            else:
                # the answer is made of the latest pass at either size; what comes before only shows the next mask
                ends = view is not last or index == len(times) - 1
                coarse, logits = self.run_step(view, resized_mask(mask, last, view), i, classes, ends)
                if logits is not None:
                    finished[id(view)] = resized(logits[:, : view.height, : view.width], size, smooth=True)
                if view is not last:
                    coarse = on_grid(coarse[:, : -(-view.height // 2), : -(-view.width // 2)], last)
            labels = coarse.argmax(0)
        logits, *fine = finished.values()
        for values in fine:
            logits = logits + np.float32(self.facts["fine_share"]) * (values - logits)
        return softmax(logits)

    def view(self, pixels: np.ndarray, own: np.ndarray, zoom: float) -> View:
        """The tile, enlarged and padded."""
        height, width = pixels.shape[1:]
        if zoom > 1:
            height, width = math.ceil(height * zoom), math.ceil(width * zoom)
            rows, columns = (cubic(a, b) for a, b in zip(pixels.shape[1:], (height, width), strict=True))
            pixels, own = np.clip(rows @ pixels @ columns.T, 0, 1), resized(own, (height, width))
        stride = self.facts["stride"]
        padding = ((0, 0), (0, -height % stride), (0, -width % stride))
        return View(np.pad(pixels, padding, "edge")[None], np.pad(own, padding, "edge")[None], height, width)

    def run_step(
        self, view: View, mask: np.ndarray, i: int, classes: np.ndarray, ends: bool
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """One pass: (S, h, w) logits on the mask's grid, and (S, H, W) at image scale if the answer needs them."""
        feed = {"image": view.image, "probs": view.slots, "mask": mask[None], "step": np.array([i])}
        if self.named:
            count = self.facts["config"]["labels"]["num_classes"]
            ids = np.concatenate([classes, np.full(view.slots.shape[1] - len(classes), count)])
            feed["classes"] = ids[None].astype(np.int64)
        options = onnxruntime.RunOptions()
        options.only_execute_path_to_fetches = True
        answers = self.session.run(["coarse_logits", "logits"][: 1 + ends], feed, options)
        return answers[0][0], answers[1][0] if ends else None


class Noise:
    """The noise of `ddps`, drawn as torch's CPU generator (MT19937) draws it.

    Args:
        seed: of the call, 0 to 2^63 - 1.
        kernel: "uniform", or "absorbing", whose masked state is the index after the last slot.
    """

    def __init__(self, seed: int, kernel: str):
        for part in (0, 0, 0):  # of the first chain of the tile at (0, 0)
            seed = (seed * 6364136223846793005 + part + 1442695040888963407) % 2**63
        self.state, self.kernel = np.random.RandomState(seed % 2**32), kernel

    def sample(self, labels: np.ndarray, alpha_bar: float, slots: int) -> np.ndarray:
        """A mask of q(x_n | x_0): every pixel keeps its slot with probability ᾱ_n."""
        keep = (self.words(labels.shape) % 2**24).astype(np.float32) * np.float32(2**-24) < np.float32(alpha_bar)
        drawn = self.words(labels.shape) % slots if self.kernel == "uniform" else slots
        return np.where(keep, labels, drawn).astype(np.int64)

    def words(self, shape: tuple[int, ...]) -> np.ndarray:
        return self.state.randint(0, 2**32, shape, dtype=np.uint32)


def grouped(
    native: np.ndarray, classes: np.ndarray, other: bool, minor: np.ndarray, size: tuple[int, ...], kind: str
) -> np.ndarray:
    """(S, H, W) probabilities of the classes that have a slot, and, with `other`, of all the others together.

    Of logits, those of the others that are negligible (`minor`, (K,) bool) are resized as one.
    """
    others = np.delete(np.arange(len(native)), classes) if other else classes[:0]
    if kind == "probs":
        answer = resized(np.concatenate([native[classes], native[others].sum(0, keepdims=True)][: 1 + other]), size)
        return answer / answer.sum(0)
    planes = [native[classes], native[others[~minor[others]]]]
    if minor[others].any():
        faint = native[others[minor[others]]]
        planes.append((np.log(np.exp(faint - faint.max(0)).sum(0)) + faint.max(0))[None])
    probs = softmax(resized(np.concatenate(planes), size))
    return np.concatenate([probs[: len(classes)], probs[len(classes) :].sum(0, keepdims=True)][: 1 + other])


def spread(slots: np.ndarray, everything: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """(K, H, W): slots become classes; what is in "other" keeps the segmentor's own proportions."""
    if len(slots) == len(classes):
        answer = np.zeros_like(everything)
    else:
        answer = everything.copy()
        answer[classes] = 0
        answer *= slots[-1] / np.maximum(answer.sum(0), np.float32(1e-12))
    answer[classes] = slots[: len(classes)]
    return answer


def make_likeliest(labels: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """Where another class than the label has the highest probability, the two change places."""
    at, best = np.indices(labels.shape), probs.argmax(0)
    top, ours = probs[best, at[0], at[1]], probs[labels, at[0], at[1]]
    probs[best, at[0], at[1]], probs[labels, at[0], at[1]] = ours, top
    return probs


def softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max(0))
    return powers / powers.sum(0)


def resized(planes: np.ndarray, size: tuple[int, ...], smooth: bool = False) -> np.ndarray:
    """(C, H, W) bilinear; `smooth` widens the filter where it shrinks."""
    if planes.shape[1:] == tuple(size):
        return planes
    rows, columns = (linear(a, b, smooth) for a, b in zip(planes.shape[1:], size, strict=True))
    return rows @ (planes @ columns.T)


def pooled(planes: np.ndarray, factor: int) -> np.ndarray:
    """(C, H, W) made smaller by a whole factor; each pixel is the mean of those that it stands for."""
    for axis in (1, 2):
        starts = np.arange(0, planes.shape[axis], factor)
        counts = np.diff([*starts, planes.shape[axis]]).astype(np.float32)
        planes = np.add.reduceat(planes, starts, axis) / (counts[:, None] if axis == 1 else counts)
    return planes


def on_grid(logits: np.ndarray, view: View) -> np.ndarray:
    """(S, h, w) logits of the unpadded tile at any size, on a view's grid."""
    size = -(-view.height // 2), -(-view.width // 2)
    padding = ((0, 0), (0, view.grid[0] - size[0]), (0, view.grid[1] - size[1]))
    return np.pad(resized(logits, size, smooth=True), padding, "edge")


def resized_mask(mask: np.ndarray, of: View, to: View) -> np.ndarray:
    """A mask on one view's grid, on another's: noise stays noise."""
    if of is to:
        return mask
    places = []
    for have, want, real_have, real_want in zip(
        of.grid, to.grid, (of.height, of.width), (to.height, to.width), strict=True
    ):
        centres = (np.arange(want, dtype=np.float32) + np.float32(0.5)) * np.float32(real_have / real_want)
        places.append(np.minimum(centres.astype(np.int64), have - 1))
    return mask[places[0][:, None], places[1]]


def linear(source: int, target: int, smooth: bool) -> np.ndarray:
    """(target, source) weights of linear resizing, pixel centres at halves."""
    scale = source / target
    return hats((np.arange(target) + 0.5) * scale, source, max(1.0, scale) if smooth else 1.0)


def hats(places: np.ndarray, source: int, reach: float = 1.0) -> np.ndarray:
    """(places, source) weights that fall linearly to 0 at `reach` pixels; beyond the border is the border."""
    if reach == 1:
        places = np.clip(places, 0.5, source - 0.5)
    weights = np.maximum(0, 1 - np.abs(np.arange(source) + 0.5 - places[:, None]) / reach)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def cubic(source: int, target: int) -> np.ndarray:
    """(target, source) weights of cubic resizing with a = -0.75, pixels repeated beyond the border."""
    position = (np.arange(target) + 0.5) * (source / target) - 0.5
    weights = np.zeros((target, source))
    for tap in range(-1, 3):
        place = np.floor(position) + tap
        x = np.abs(position - place)
        near, far = (1.25 * x - 2.25) * x * x + 1, -0.75 * (((x - 5) * x + 8) * x - 4)
        np.add.at(
            weights,
            (np.arange(target), np.clip(place, 0, source - 1).astype(int)),
            np.where(x <= 1, near, far),
        )
    return weights.astype(np.float32)


def read_prediction(path: Path) -> tuple[np.ndarray, str]:
    """A (K, h, w) array and its kind, from .npz (key logits or probs) or .npy (told by its values)."""
    content = np.load(path, allow_pickle=False)
    if not isinstance(content, np.ndarray):
        for kind in ("logits", "probs"):
            if kind in content.files:
                return content[kind], kind
        raise SystemExit(f"{path}: expected the key logits or probs; got {', '.join(content.files)}")
    sums_to_1 = len(content) > 1 and content.min() >= 0 and np.abs(content.sum(0) - 1).max() < 0.01
    return content, "probs" if sums_to_1 else "logits"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="what ddps export wrote")
    parser.add_argument("image", type=Path)
    parser.add_argument("prediction", type=Path, help=".npz or .npy")
    parser.add_argument("-o", "--output", type=Path, default=Path("mask.png"))
    parser.add_argument("--probs", type=Path, help=".npy for the probabilities")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0)
    args = parser.parse_args()
    with Image.open(args.image) as photo:
        image = np.asarray(ImageOps.exif_transpose(photo).convert("RGB"))
    prediction, kind = read_prediction(args.prediction)
    if prediction.ndim != 3:
        raise SystemExit(f"{args.prediction}: expected (K, h, w); got {prediction.shape}")
    labels, probs = Refiner(args.model, args.threads).refine(image, prediction, kind, args.steps, args.seed)
    # Each under another name first, so that nobody sees half a file.
    part = args.output.with_name(f".part.{args.output.name}")
    Image.fromarray(labels.astype(np.uint8 if len(probs) <= 256 else np.uint16)).save(part)
    part.replace(args.output)
    if args.probs is not None:
        part = args.probs.with_name(".part.npy")
        np.save(part, probs)
        part.replace(args.probs)
    print(f"wrote {args.output}: {labels.shape[0]} x {labels.shape[1]}, classes {np.unique(labels).tolist()}")


if __name__ == "__main__":
    main()
