"""Whether files that were made here still hold what was written."""

import hashlib
import json
import os
from collections.abc import Sequence
from functools import lru_cache

__all__ = ["CHECKSUMS", "changed_files", "sha256_of", "write_checksums"]

CHECKSUMS = "checksums.json"


def sha256_of(path: str | os.PathLike) -> str:
    """The SHA-256 of a file, in hexadecimal; read once as long as its size and time stay.

    Args:
        path: of the file.

    Raises:
        OSError: it cannot be read.
    """
    stat = os.stat(path)
    return _sha256(os.fspath(path), stat.st_mtime_ns, stat.st_size, stat.st_ino)


@lru_cache(maxsize=100_000)  # each loader and evaluator of a config asks
def _sha256(path: str, mtime_ns: int, size: int, inode: int) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_checksums(folder: str, files: Sequence[str]) -> None:
    """Write `CHECKSUMS` into a folder that is being made.

    Args:
        folder: with all of the files in it.
        files: their paths, relative to it.
    """
    sums = {name: sha256_of(os.path.join(folder, name)) for name in files}
    with open(os.path.join(folder, CHECKSUMS), "w", encoding="utf-8") as f:
        json.dump(sums, f, indent=0)


def changed_files(folder: str) -> list[str]:
    """What is missing in a folder, or no more what was written, in words.

    Args:
        folder: one with `CHECKSUMS`; without this file nothing is known, and nothing is said.

    Raises:
        ValueError: `CHECKSUMS` is damaged itself.
    """
    path = os.path.join(folder, CHECKSUMS)
    try:
        with open(path, encoding="utf-8") as f:
            sums = dict(json.load(f))
    except FileNotFoundError:  # made before there were checksums
        return []
    except (OSError, ValueError, TypeError) as e:
        raise ValueError(f"{path} cannot be read ({e})") from e
    found = []
    for name, expected in sums.items():
        try:
            if sha256_of(os.path.join(folder, name)) != expected:
                found.append(f"{name} is not what was written")
        except OSError as e:
            found.append(f"{name} cannot be read ({e.strerror})")
    return found
