"""Images near decision boundaries: flip images, certified radii, inverse images and morphs."""

from fsboundary.pixels.amplification import amplification, vulnerability_by_class
from fsboundary.pixels.certification.certified_radii import certify
from fsboundary.pixels.certification.segment_classes import segment_classes
from fsboundary.pixels.certification.smoothed_classes import smoothed
from fsboundary.pixels.certification.smoothed_distances import smoothed_distances
from fsboundary.pixels.checks import check_accuracy
from fsboundary.pixels.crossed_images import crossed_images
from fsboundary.pixels.film import film_strip, write_gif
from fsboundary.pixels.flip_images import flip_images
from fsboundary.pixels.inversion import inverse_images
from fsboundary.pixels.morph import morph

__all__ = [
    "amplification",
    "certify",
    "check_accuracy",
    "crossed_images",
    "film_strip",
    "flip_images",
    "inverse_images",
    "morph",
    "segment_classes",
    "smoothed",
    "smoothed_distances",
    "vulnerability_by_class",
    "write_gif",
]
