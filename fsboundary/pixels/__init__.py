"""The same questions of images: flip images, inverse images, morphs."""
