"""One `StepNetwork` for the calls that would make the same one."""

from collections.abc import Sequence

import torch

from .paper import FeaturesDenoiser
from .paper_inference import StepNetwork


class LatestSteps:
    """Keeps the latest `StepNetwork` for as long as nothing that it was made of has changed."""

    def __init__(self) -> None:
        self._latest: tuple[object, StepNetwork] | None = None
        self.compiled_with: tuple[str, str | None] | None = None  # backend and mode

    def of(self, network: FeaturesDenoiser, times: Sequence[int], dtype: torch.dtype | None = None) -> StepNetwork:
        """A `StepNetwork` of these; the one of the call before where it would be the same.

        A tensor that was put in another's place has another address; one that was written to has another sum, whichever
        way it was written.
        """
        parts = (network.unet, network.embed, network.conv_seg_new)
        values = [value for part in parts for value in part.state_dict().values()]
        sums = torch.stack([value.sum(dtype=torch.float32) for value in values]).tolist()
        state = tuple((value.data_ptr(), total) for value, total in zip(values, sums, strict=True))
        key = (tuple(times), dtype, self.compiled_with, state)
        latest = self._latest
        if latest is None or latest[0] != key:
            steps = StepNetwork(network, times, dtype)
            if self.compiled_with is not None:
                steps.compile_steps(*self.compiled_with)
            latest = key, steps
            self._latest = latest
        return latest[1]
