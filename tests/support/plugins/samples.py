"""Plugins as third parties might write them, correct and faulty, each as a distribution."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Sample(NamedTuple):
    """A distribution with one module and one entry point."""

    version: str
    source: str

    def write(self, name: str, folder: str) -> dict[str, str]:
        """Return the files of its source tree, by path."""
        module = name.replace("-", "_")
        project = PROJECT.format(name=name, version=self.version, module=module)
        return {f"{folder}/pyproject.toml": project, f"{folder}/{module}.py": self.source}


PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "{name}"
version = "{version}"
[project.entry-points.fsboundary]
{module}_entry = "{module}"
[tool.hatch.build.targets.wheel]
only-include = ["{module}.py"]
"""

FINDER = """
import torch
import fsboundary as fsb
from fsboundary.plugins.interfaces import unsolved_flips

class Finder(fsb.BoundaryFinder):
    def __init__(self, *, strength: float = 1.0, label: str = ""):
        self.strength, self.label = strength, label

    def find(self, head, features, *, targets, tolerance, max_steps):
        # for two classes only: step to the tie, with the multiplier that proves it nearest
        z = features.double()
        source = head.predict(z)
        weight, bias = head.weight.double(), head.bias.double()
        normal = weight[source][:, None] - weight[targets]
        offset = bias[source][:, None] - bias[targets]
        margin = (normal * z[:, None]).sum(-1) + offset
        multipliers = -margin / (normal * normal).sum(-1)
        fields = unsolved_flips(z, source, targets)
        fields["points"] = z[:, None] + multipliers[..., None] * normal
        fields["active"] = targets[..., None]
        fields["multipliers"] = multipliers[..., None]
        return fsb.FlipPoints(**self.change(fields))

    def change(self, fields):
        return fields
"""

GOOD = f"""{FINDER}
class Pixels(fsb.ImageBoundaryFinder):
    def find(self, view, images, *, targets, bounds, norm, max_steps):
        raise NotImplementedError

class Hull(fsb.HullSolver):
    def prepare(self, points): ...
    def project(self, state, queries, *, exclude=None, tolerance, max_steps): ...

def broken(level):
    raise RuntimeError(f"no backend for level {{level}}")

@fsb.hookimpl
def register_boundary_finders():
    yield fsb.Registration("good", Finder, "an example")
    yield fsb.Registration("good", Pixels, "of images", capabilities=frozenset({{"pixels"}}))
    yield fsb.Registration("good_pixels", Pixels, "of images", capabilities=frozenset({{"pixels"}}))

@fsb.hookimpl
def register_hull_solvers():
    return [
        fsb.Registration("good", Hull, "an example"),
        fsb.Registration("broken", broken, "its factory raises"),
        fsb.Registration("impostor", dict, "its factory returns something else"),
        fsb.Registration("absent", fsb.plugins.lazy("fsb_test_absent:Solver"), "not there"),
    ]
"""

LIAR = f"""{FINDER}
class Liar(Finder):
    def change(self, fields):
        # on the boundary, but far from the nearest point of it
        fields["points"] = fields["points"] + 10.0
        fields["multipliers"] = torch.zeros_like(fields["multipliers"])
        fields["distance"] = torch.full_like(fields["distance"], 1e-9)
        fields["lower_bound"] = torch.full_like(fields["distance"], 100.0)
        fields["gap"] = torch.zeros_like(fields["gap"])
        fields["violation"] = torch.zeros_like(fields["gap"])
        fields["status"] = torch.full_like(fields["status"], int(fsb.Status.CONVERGED))
        return fields

@fsb.hookimpl
def register_boundary_finders():
    return [fsb.Registration("liar", Liar, "makes false claims")]
"""

HOOK_RAISES = """
import fsboundary as fsb

@fsb.hookimpl
def register_hull_solvers():
    return [fsb.Registration("innocent", dict, "")]

@fsb.hookimpl
def register_boundary_finders():
    raise RuntimeError("the licence server\\ndid not answer")
"""

MISSPELT = """
import fsboundary as fsb

@fsb.hookimpl
def register_boundary_finder():
    return [fsb.Registration("misspelt", dict, "")]
"""

SECOND = f"""{FINDER}
@fsb.hookimpl
def register_boundary_finders():
    return [
        fsb.Registration("good", Finder, "has the name of another plugin's"),
        fsb.Registration("dual_newton", Finder, "has the name of a built-in one"),
        fsb.Registration("second", Finder, "has its own name"),
        fsb.Registration("second", Finder, "has it twice"),
    ]
"""

NEWER = f"""{FINDER}
@fsb.hookimpl
def register_boundary_finders():
    return [
        fsb.Registration("future", Finder, "", api_version=99),
        fsb.Registration("present", Finder, ""),
    ]
"""

NOISY = f"""{FINDER}
import os

print("hello from the plugin")

@fsb.hookimpl
def register_boundary_finders():
    os.write(1, b"hello from C\\n")
    return [fsb.Registration("noisy", Finder, "")]
"""

SAMPLES = {
    "fsb-test-exit": Sample("1.0", "import sys\nsys.exit(3)\n"),
    "fsb-test-good": Sample("1.2", GOOD),
    "fsb-test-hook": Sample("0.1", HOOK_RAISES),
    "fsb-test-import": Sample("0.2", "raise ImportError('libsolver.so: not found')\n"),
    "fsb-test-liar": Sample("6.6", LIAR),
    "fsb-test-misspelt": Sample("0.3", MISSPELT),
    "fsb-test-newer": Sample("9.0", NEWER),
    "fsb-test-noisy": Sample("1.1", NOISY),
    "fsb-test-second": Sample("2.0", SECOND),
    "fsb-test-signature": Sample(
        "0.4",
        "import fsboundary as fsb\n@fsb.hookimpl\ndef register_hull_solvers(config): return []\n",
    ),
}


def install(folder: Path, name: str, entry_points: str, source: str = "") -> None:
    """Write an installed distribution by hand, for metadata that no build tool would write."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entry_points)
    (folder / f"{name}.py").write_text(source)
