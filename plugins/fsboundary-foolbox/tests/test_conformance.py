from fsboundary_foolbox.finder import Foolbox

from fsboundary.testing import image_finder_tests

test_foolbox = image_finder_tests(Foolbox)
