from fsboundary_foolbox.features import FoolboxFeatures
from fsboundary_foolbox.finder import Foolbox

from fsboundary.testing import boundary_finder_tests, image_finder_tests

test_foolbox = image_finder_tests(Foolbox)
test_foolbox_features = boundary_finder_tests(
    FoolboxFeatures,
    expected_failures={"known_answers": "the line from an attack's point may meet a third class"},
    nonlinear_head=True,
)
