"""The demo: a trained network, real images and their report, all included in the package."""

from fsboundary.demo.load import DemoData, load_demo
from fsboundary.demo.run import run_demo

__all__ = ["DemoData", "load_demo", "run_demo"]
