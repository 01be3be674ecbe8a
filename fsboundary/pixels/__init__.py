"""The same questions of images: flip images, inverse images, morphs."""

from fsboundary.pixels.amplify import amplification
from fsboundary.pixels.film import film_strip, write_gif
from fsboundary.pixels.flip_images import flip_images
from fsboundary.pixels.inputs import check_accuracy
from fsboundary.pixels.inversion import invert
from fsboundary.pixels.just_across import just_across
from fsboundary.pixels.morphing import morph
from fsboundary.pixels.ranking import vulnerability_by_class

__all__ = [
    "amplification",
    "check_accuracy",
    "film_strip",
    "flip_images",
    "invert",
    "just_across",
    "morph",
    "vulnerability_by_class",
    "write_gif",
]
