from fsboundary_wavelets.extractor import Wavelets

from fsboundary.testing import feature_extractor_tests

test_wavelets = feature_extractor_tests(Wavelets)
