"""The 68 landmarks of the face (iBUG's scheme, also dlib's and FAN's) out of MediaPipe's 478 mesh points.

No mesh point was made to be one of the 68, so this is a correspondence by place: the nearest mesh vertex on the same
feature, mirror images of each other on the two sides. It was checked by eye on frontal and turned faces. The jaw line
is the weak part: MediaPipe's outline follows the silhouette's fixed vertices, where the 68 scheme slides along the
visible contour of a turned head. "Right" is the person's right, on the left of the picture.
"""

from __future__ import annotations

import numpy as np

JAW = slice(0, 17)
RIGHT_BROW, LEFT_BROW = slice(17, 22), slice(22, 27)
NOSE = slice(27, 36)
RIGHT_EYE, LEFT_EYE = slice(36, 42), slice(42, 48)
MOUTH = slice(48, 68)
INNER = slice(17, 68)  # all but the jaw line

# All points of MediaPipe's mesh that outline the lips, inner and outer.
MESH_LIPS = np.array(
    [
        *(0, 13, 14, 17, 37, 39, 40, 61, 78, 80, 81, 82, 84, 87, 88, 91, 95, 146, 178, 181),
        *(185, 191, 267, 269, 270, 291, 308, 310, 311, 312, 314, 317, 318, 321, 324, 375, 402, 405, 409, 415),
    ]
)

MEDIAPIPE_68 = np.array(
    [
        # Jaw: right ear, chin (152), left ear.
        *(127, 234, 93, 132, 172, 136, 150, 176, 152, 400, 379, 365, 397, 361, 323, 454, 356),
        *(70, 63, 105, 66, 107),  # right brow, from outside
        *(336, 296, 334, 293, 300),  # left brow, from inside
        *(168, 197, 5, 4),  # bridge of the nose, down to the tip
        *(98, 97, 2, 326, 327),  # under the nose
        *(33, 160, 158, 133, 153, 144),  # right eye, from the outer corner over the upper lid
        *(362, 385, 387, 263, 373, 380),  # left eye, from the inner corner over the upper lid
        *(61, 40, 37, 0, 267, 270, 291, 321, 314, 17, 84, 91),  # outer lips, from the right corner over the top
        *(78, 81, 13, 311, 308, 402, 14, 178),  # inner lips, the same way
    ]
)

# For each of the 68, the landmark on the other side.
MIRRORED_68 = np.array(
    [
        *range(16, -1, -1),
        *range(26, 16, -1),
        *(27, 28, 29, 30),
        *(35, 34, 33, 32, 31),
        *(45, 44, 43, 42, 47, 46),
        *(39, 38, 37, 36, 41, 40),
        *(54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55),
        *(64, 63, 62, 61, 60, 67, 66, 65),
    ]
)


def landmarks_68(points: np.ndarray) -> np.ndarray:
    """The 68 landmarks of MediaPipe's points.

    Args:
        points: (..., 478, C), any C.

    Returns:
        (..., 68, C), the same numbers.
    """
    return points[..., MEDIAPIPE_68, :]
