"""The one preprocessing: from encoded bytes (or a raw camera frame) to the uint8 pixels that a network takes.

Training, calibration, parity, bench and deployment all call this. Two steps, both in integer arithmetic, so that every
processor gives the same pixels:

1. *reduce* by a power of two while the image stays at least as large as the network's input: for a JPEG inside the
   decoder (libjpeg-turbo's scaled inverse DCT), for everything else by box averaging;
2. *fit* to the input size: an antialiased bilinear filter over the picture's true extent, the partial blocks at its
   edge included, wherever the orientation puts them.

Mean and scale are not here: they are inside the exported graph.
"""

from edgecnn.imaging.orientation import orientation
from edgecnn.imaging.pixels import EXTENSIONS, MAX_BYTES, MAX_PIXELS, Images, Pixels, read_encoded
from edgecnn.imaging.preparer import (
    Preparer,
    Reduced,
    as_stored,
    decode_whole,
    prepare,
    prepare_frame,
    reduction,
)
from edgecnn.imaging.whole import DEPTHS, bits_of

__all__ = [
    "DEPTHS",
    "EXTENSIONS",
    "MAX_BYTES",
    "MAX_PIXELS",
    "Images",
    "Pixels",
    "Preparer",
    "Reduced",
    "as_stored",
    "bits_of",
    "decode_whole",
    "orientation",
    "prepare",
    "prepare_frame",
    "read_encoded",
    "reduction",
]
