from fsboundary_qpsolvers.finder import QpFinder
from fsboundary_qpsolvers.hull import QpHull

from fsboundary.testing import boundary_finder_tests, hull_solver_tests

test_hull_with_clarabel = hull_solver_tests(QpHull)
test_hull_with_proxqp = hull_solver_tests(lambda: QpHull("proxqp"))
test_finder_with_clarabel = boundary_finder_tests(QpFinder)
test_finder_with_proxqp = boundary_finder_tests(lambda: QpFinder("proxqp"))
