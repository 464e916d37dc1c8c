"""Pictures and films as bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np


def encode_png(image: np.ndarray) -> bytes:
    """PNG bytes of a uint8 picture (H, W, 3), (H, W, 4) or (H, W)."""
    file = io.BytesIO()
    _pillow(image).save(file, format="PNG")
    return file.getvalue()


def encode_gif(frames: Sequence[np.ndarray], fps: float = 10.0) -> bytes:
    """GIF bytes, looping, of uint8 frames of one shape as for encode_png."""
    assert len(frames) > 0, "a film needs at least one frame"
    first, *rest = [_pillow(frame) for frame in frames]
    file = io.BytesIO()
    first.save(file, format="GIF", save_all=True, append_images=rest, duration=round(1000 / fps), loop=0)
    return file.getvalue()


def _pillow(image: np.ndarray) -> Any:
    from PIL import Image

    assert image.dtype == np.uint8 and image.ndim in (2, 3), f"expected uint8 (H, W[, C]): {image.dtype} {image.shape}"
    return Image.fromarray(np.ascontiguousarray(image))
