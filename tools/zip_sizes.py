"""Print the size of the zip that each built function would be uploaded as.

Usage: zip_sizes.py BUILD_DIRECTORY LIMIT_MB. Exits with 1 when one is larger than the limit.
"""

from __future__ import annotations

import sys
import tempfile
import zipfile
from pathlib import Path


def zip_bytes(folder: Path) -> int:
    """Return the size in bytes of `folder` as a zip, compressed as `sam deploy` does it."""
    with tempfile.TemporaryFile() as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(folder.rglob("*")):
                archive.write(path, path.relative_to(folder))
        return file.tell()


def main(build: Path, limit_mb: float) -> int:
    """Print a line for each function below `build`; return the exit status."""
    folders = sorted(path for path in build.iterdir() if path.is_dir())
    if not folders:
        print(f"Nothing was built in {build}.", file=sys.stderr)
        return 1
    too_large = []
    for folder in folders:
        size_mb = zip_bytes(folder) / 1_000_000
        print(f"{size_mb:6.2f} MB  {folder.name}")
        if size_mb > limit_mb:
            too_large.append(folder.name)
    if too_large:
        print(f"Larger than {limit_mb:g} MB: {', '.join(too_large)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), float(sys.argv[2])))
