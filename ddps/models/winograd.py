"""3x3 convolutions with a quarter of the products: Winograd's F(4x4, 3x3).

A 4x4 patch of the answer needs 36 products per pair of channels in place of 144. Both transforms around them are
matrix products, too, so that all of it runs at the speed of those. At 256 channels the rounding errors are those of the
direct sum. It pays on CPUs in float32; on CUDA cuDNN has its own, and lower precisions lose too much.

Source: Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, arXiv 1509.09308.
"""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

PATCH, WINDOW = 4, 6
# Values of the transformed input at once, for every thread: 16 MiB, which stays near the core.
BAND_VALUES = 1 << 22
# Evaluated at 0, ±1/√2, ±√2 and infinity: round-off is less than at the usual 0, ±1, ±2.
R = math.sqrt(2)
OF_INPUT = (
    (1, 0, -5 / 2, 0, 1, 0),
    (0, -R, -2, R / 2, 1, 0),
    (0, R, -2, -R / 2, 1, 0),
    (0, -R / 2, -1 / 2, R, 1, 0),
    (0, R / 2, -1 / 2, -R, 1, 0),
    (0, 1, 0, -5 / 2, 0, 1),
)
OF_FILTER = (
    (1, 0, 0),
    (-2 / 3, -R / 3, -1 / 3),
    (-2 / 3, R / 3, -1 / 3),
    (1 / 6, R / 6, 1 / 3),
    (1 / 6, -R / 6, 1 / 3),
    (0, 0, 1),
)
OF_ANSWER = (
    (1, 1, 1, 1, 1, 0),
    (0, R / 2, -R / 2, R, -R, 0),
    (0, 1 / 2, 1 / 2, 2, 2, 0),
    (0, R / 4, -R / 4, 2 * R, -2 * R, 1),
)


class WinogradConv(nn.Module):
    """A 3x3 convolution of stride 1 and padding 1 for inference.

    Args:
        weight: (O, I, 3, 3).
        bias: (O,).
    """

    filters: Tensor
    bias: Tensor
    of_input: Tensor
    of_answer: Tensor

    def __init__(self, weight: Tensor, bias: Tensor):
        super().__init__()
        filters = _both_sides(OF_FILTER, weight) @ weight.flatten(2).flatten(0, 1).T
        self.register_buffer("filters", filters.unflatten(1, weight.shape[:2]), persistent=False)
        self.register_buffer("bias", bias, persistent=False)
        self.register_buffer("of_input", _both_sides(OF_INPUT, weight), persistent=False)
        self.register_buffer("of_answer", _both_sides(OF_ANSWER, weight), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, I, H, W) to (B, O, H, W), both channels last in memory."""
        batch, channels, height, width = x.shape
        rows, columns = -(-height // PATCH), -(-width // PATCH)
        margins = (0, 0, 1, PATCH * columns - width + 1, 1, PATCH * rows - height + 1)
        padded = F.pad(rearrange(x, "b c h w -> b h w c"), margins)
        windows = rearrange(padded.unfold(1, WINDOW, PATCH).unfold(2, WINDOW, PATCH), "b r q c v w -> v w b r q c")
        answer = x.new_empty(batch, rows, PATCH, columns, PATCH, len(self.bias))
        threads = 1 if torch.compiler.is_compiling() else torch.get_num_threads()
        band = max(1, BAND_VALUES * threads // (WINDOW * WINDOW * batch * columns * channels))
        for top in range(0, rows, band):
            some = windows[:, :, :, top : top + band]
            count = some.shape[3]
            inputs = self.of_input @ some.reshape(WINDOW * WINDOW, -1)
            products = torch.bmm(inputs.view(WINDOW * WINDOW, -1, channels), self.filters.mT)
            patches = self.of_answer @ products.view(WINDOW * WINDOW, -1)
            patches = patches.view(PATCH, PATCH, batch, count, columns, -1)
            patches = rearrange(patches, "v w b r q o -> b r v q w o")
            if torch.compiler.is_compiling():
                answer[:, top : top + count] = patches + self.bias
            else:
                torch.add(patches, self.bias, out=answer[:, top : top + count])
        # einops gives a batch of one a stride by which torch no longer takes the answer for channels last
        return answer.view(batch, rows * PATCH, columns * PATCH, -1)[:, :height, :width].permute(0, 3, 1, 2)


def _both_sides(matrix: tuple[tuple[float, ...], ...], like: Tensor) -> Tensor:
    """M ⊗ M: what M does to the rows and to the columns of a window, as one matrix."""
    one = torch.tensor(matrix, dtype=torch.float64)
    return torch.kron(one, one).to(like)
