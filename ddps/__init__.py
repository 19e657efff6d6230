"""Masks of any semantic segmentor, made better by a discrete diffusion model of masks (DDPS, arXiv 2306.01721)."""

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["DDPSConfig", "DDPSRefiner", "InputError", "Refinement", "__version__"]

if TYPE_CHECKING:
    from .config import DDPSConfig
    from .errors import InputError
    from .outputs import Refinement
    from .refiner import DDPSRefiner
else:
    # Names are imported when they are first asked for (PEP 562): torch takes seconds, and `ddps --help` needs none.
    _MODULES = {"DDPSConfig": "config", "DDPSRefiner": "refiner", "InputError": "errors", "Refinement": "outputs"}

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(f".{_MODULES[name]}", __name__), name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
