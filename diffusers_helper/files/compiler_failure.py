"""The record of a compiler that failed on this machine, until something changes. Knows no compiler."""

import contextlib
import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path

from .atomic import atomic_write

NAME = "not_compiled.json"


def installed_versions(cache: Path) -> dict[str, str]:
    """Return what decides whether a compiler works, as far as it can be told without importing PyTorch."""
    versions = {"folder": str(cache)}
    for package in ("torch", "triton", "triton-windows"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


def read_failure(cache: Path, versions: Mapping[str, str]) -> str | None:
    """Return why compiling failed with these versions; None where nothing is known of that."""
    try:
        record = json.loads((cache / NAME).read_text("utf-8"))
        is_same = record["versions"].items() >= versions.items()
        return str(record["reason"]) if is_same else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def write_failure(cache: Path, versions: Mapping[str, str], reason: str) -> None:
    """Record why compiling failed. Where that cannot be written, the next start tries again."""
    with contextlib.suppress(OSError):
        cache.mkdir(parents=True, exist_ok=True)
        with atomic_write(cache / NAME, flush=False) as part:
            part.write_text(json.dumps({"versions": dict(versions), "reason": reason}), "utf-8")
