"""Where a network runs, and in which number format it is fastest there."""

import torch

from .errors import InputError


def find_device(device: str | torch.device | None) -> torch.device:
    """The device of that name; None for CUDA if there is one, else the CPU.

    Raises:
        InputError: torch cannot use it here.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        raise InputError("a device that torch can use here", f"{device} ({error})"[:160], "device='cpu'") from None
    return found


def has_native_bfloat16(device: torch.device) -> bool:
    """Whether the hardware itself computes in bfloat16 (AVX-512 BF16 on a CPU, Ampere and later
    of NVIDIA); emulation is slower than float32."""
    if device.type == "cuda":
        return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return device.type == "cpu" and supported is not None and bool(supported())
