"""The command line as ``python -m fsboundary``."""

from fsboundary.cli import main

if __name__ == "__main__":
    main()
