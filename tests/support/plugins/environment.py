"""Clean environment with distributions built as wheels and installed by pip."""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import fsboundary

# Each tree is built by the backend's own hook, one process for all of them.
BUILD = """
import os, sys
from hatchling.build import build_wheel
for tree in sys.argv[2:]:
    os.chdir(tree)
    build_wheel(sys.argv[1])
"""


class Environment:
    """A virtual environment without pip that sees this one's packages and further ones.

    Parameters
    ----------
    root : Path
        Empty folder in which everything is written.
    """

    def __init__(self, root: Path) -> None:
        self._root, self._round = root, 0
        home = root / "env"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
        self.python = home / ("Scripts" if os.name == "nt" else "bin") / "python"
        [packages] = home.glob("lib/python*/site-packages")
        # addsitedir, not a bare path: some packages here are found through their own .pth files
        lines = [f"import site; site.addsitedir({folder!r})" for folder in site.getsitepackages()]
        (packages / "parent.pth").write_text("\n".join(lines) + "\n")
        self.packages = packages

    def install(self, trees: Iterable[Path]) -> list[str]:
        """Build copies of the source trees and install the wheels; return the wheels' names."""
        self._round += 1
        wheels, sources = (self._root / f"{name}{self._round}" for name in ("wheels", "sources"))
        copies = []
        for tree in trees:
            shutil.copytree(tree, sources / tree.name)
            copies.append(str(sources / tree.name))
        subprocess.run([sys.executable, "-c", BUILD, str(wheels), *copies], check=True)
        built = sorted(wheels.glob("*.whl"))
        pip = ["-m", "pip", "--python", str(self.python), "install", "--quiet", "--no-deps"]
        again = [
            "--no-index",
            "--force-reinstall",
        ]  # the same version is installed again after an edit
        subprocess.run([sys.executable, *pip, *again, *map(str, built)], check=True)
        return [wheel.name for wheel in built]

    def run(self, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run the environment's Python; the fsboundary under test comes first on its path."""
        variables = {k: v for k, v in os.environ.items() if k != "FSBOUNDARY_PLUGINS"}
        variables["PYTHONPATH"] = str(Path(fsboundary.__file__).parent.parent)
        variables["OMP_NUM_THREADS"] = "1"
        command = [str(self.python), *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, env=variables, check=False, cwd=cwd
        )
