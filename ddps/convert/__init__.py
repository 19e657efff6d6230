"""Released checkpoints (pickled `.pth` files of mmcv) → folders that `DDPSRefiner.from_pretrained` loads."""

from .checkpoint import Conversion, convert_checkpoint

__all__ = ["Conversion", "convert_checkpoint"]
