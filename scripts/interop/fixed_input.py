"""The images that both sides predict; the same formula stands in tests/tensorflow.rs."""

import numpy as np


def fixed_input(shape, count=3):
    """`count` images of values from -1 to 1, each half as strong as the one before.

    Every step is exact in float32.
    """
    length = count * int(np.prod(shape))
    positions = np.arange(length, dtype=np.uint64)
    values = (positions * np.uint64(2654435761) % np.uint64(2**32)) >> np.uint64(12)
    images = (values.astype(np.float32) / np.float32(2**19) - np.float32(1)).reshape((count, *shape))
    strengths = np.float32(0.5) ** np.arange(count, dtype=np.float32)
    return images * strengths.reshape((count, *[1] * len(shape)))
