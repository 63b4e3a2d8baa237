"""The manifest of a checkpoint: what it consists of, written last, so that its presence means "complete".

Storage may lose the end of an upload, a driver may die between two files, and Transformers picks the newest directory
by name, complete or not. So nothing in hfsuite resumes from a directory whose `manifest.json` is missing or whose files
do not match it.
"""

from __future__ import annotations

import functools
import importlib.metadata
import json
import logging
import platform
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from fnmatch import fnmatch
from typing import Any

import pyarrow.fs
import xxhash
from ray.train import Checkpoint

from hfsuite.errors import CheckpointError

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
SNAPSHOT = "checkpoint_manager_snapshot.json"  # Ray Train's own list of a run's checkpoints, complete or not
WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
_RAY_METADATA = ".metadata.json"  # `Checkpoint.set_metadata` adds it at any time
FORMAT = 2
_BLOCK = 64 << 20  # bytes of a file that one thread reads; part of the format: a file's hash is that of its blocks'
_READ, _REMOTE_READ = 1 << 20, 8 << 20  # bytes read at a time: what a processor's cache holds; for object stores
_THREADS = 8  # at most; a block is one core's work


def seal(checkpoint: Checkpoint, metrics: Mapping[str, Any], world_size: int) -> dict[str, Any]:
    """Writes the manifest of a finished checkpoint and returns it. Runs in the process that owns the run's reports.

    Args:
        checkpoint: all ranks' files are there.
        metrics: the report that the checkpoint came with; its `step`, `epoch` and `training_iteration` are recorded.
        world_size: number of ranks that wrote it.
    """
    sizes = _sizes(checkpoint)
    hashes = _hashes(checkpoint, sizes)
    manifest = {
        "format": FORMAT,
        "sealed_at": time.time(),
        "step": metrics.get("step"),
        "epoch": metrics.get("epoch"),
        "training_iteration": metrics.get("training_iteration"),
        "world_size": world_size,
        "versions": versions(),
        "files": {name: {"size": size, "xxh3_128": hashes[name]} for name, size in sizes.items()},
    }
    with checkpoint.filesystem.open_output_stream(f"{checkpoint.path}/{MANIFEST}") as stream:
        stream.write(json.dumps(manifest, indent=1, default=str).encode())
    return manifest


def verify(checkpoint: Checkpoint) -> dict[str, Any]:
    """Returns the manifest of a complete, unchanged checkpoint.

    Raises:
        CheckpointError: the manifest is missing or unreadable, or the files differ from it; all differences are named.
    """
    manifest = read(checkpoint)
    present, faults = _sizes(checkpoint), []
    listed = manifest["files"]
    hashes = _hashes(checkpoint, {name: size for name, size in present.items() if name in listed})
    for name, recorded in listed.items():
        if name not in present:
            faults.append(f"{name} is missing")
        elif present[name] != recorded["size"]:
            faults.append(f"{name} has {present[name]:,} bytes instead of {recorded['size']:,}")
        elif hashes[name] != recorded["xxh3_128"]:
            faults.append(f"{name} has other contents than when it was saved")
    faults += [f"{name} is not listed" for name in sorted(present.keys() - listed.keys() - {_RAY_METADATA})]
    if faults:
        raise CheckpointError(
            f"The checkpoint {checkpoint.path} does not match its manifest: {'; '.join(faults)}. "
            "Resume from another checkpoint, or train from the start."
        )
    return manifest


def read(checkpoint: Checkpoint) -> dict[str, Any]:
    """Returns the manifest without looking at the files it describes."""
    try:
        with checkpoint.filesystem.open_input_stream(f"{checkpoint.path}/{MANIFEST}") as stream:
            manifest = json.loads(stream.read())
        if not isinstance(manifest["files"], dict):
            raise TypeError("'files' is not a table")
        if manifest["format"] != FORMAT:
            raise ValueError(f"its format is {manifest['format']}, and this version of hfsuite reads {FORMAT}")
    except FileNotFoundError as error:
        raise CheckpointError(
            f"The checkpoint {checkpoint.path} has no {MANIFEST}: it was never finished, or hfsuite did not write it. "
            "If you know that it is complete, seal it once with TransformersCheckpoint.seal(path)."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"The checkpoint {checkpoint.path} has an unreadable {MANIFEST}: {error}.") from error
    return dict(manifest)


def weights_digest(checkpoint: Checkpoint) -> str | None:
    """What the weights of a checkpoint are, by the hashes in its manifest; None if it has none in a known format.

    Raises:
        CheckpointError: the manifest is missing or unreadable.
    """
    return _digest({name: each["xxh3_128"] for name, each in read(checkpoint)["files"].items() if _is_weights(name)})


def weights_digest_of(folder: str) -> str | None:
    """The same of a folder without a manifest: its files are read."""
    files = Checkpoint(folder)
    return _digest(_hashes(files, {name: size for name, size in _sizes(files).items() if _is_weights(name)}))


def _digest(hashes_by_name: Mapping[str, str]) -> str | None:
    hashes = [f"{name} {found}" for name, found in sorted(hashes_by_name.items())]
    return xxhash.xxh3_128("\n".join(hashes).encode()).hexdigest() if hashes else None


def _is_weights(name: str) -> bool:
    return any(fnmatch(name.rpartition("/")[2], pattern) for pattern in WEIGHTS)


def is_sealed(checkpoint: Checkpoint) -> bool:
    """Whether the manifest is there: the checkpoint was finished, and has not been deleted since."""
    return bool(checkpoint.filesystem.get_file_info(f"{checkpoint.path}/{MANIFEST}").is_file)


def complete_or_older(checkpoint: Checkpoint, filesystem: pyarrow.fs.FileSystem, directory: str) -> Checkpoint | None:
    """The checkpoint if it is complete, else the newest complete one in the directory, else none: from the start."""
    try:
        verify(checkpoint)
    except CheckpointError as error:
        newest = newest_complete(filesystem, directory)
        logger.warning("%s Going on from %s.", error, newest.path if newest else "the start")
        return newest
    return checkpoint


def newest_complete(filesystem: pyarrow.fs.FileSystem, directory: str) -> Checkpoint | None:
    """The complete checkpoint of a run that was written last.

    Args:
        filesystem: where the run is stored.
        directory: the run's (or trial's) directory.
    """
    sealed = []
    for entry in filesystem.get_file_info(pyarrow.fs.FileSelector(directory, allow_not_found=True)):
        if entry.type == pyarrow.fs.FileType.Directory and entry.base_name.startswith("checkpoint_"):
            checkpoint = Checkpoint(entry.path, filesystem)
            with suppress(CheckpointError):
                sealed.append((read(checkpoint)["sealed_at"], checkpoint.path, checkpoint))
    for _, _, checkpoint in sorted(sealed, reverse=True):  # not by step or iteration: a restored run counts anew
        with suppress(CheckpointError):
            verify(checkpoint)
            return checkpoint
    return None


@functools.cache
def versions() -> dict[str, str]:
    """Versions of what decides whether a checkpoint can be read again."""
    packages = ("hfsuite", "ray", "torch", "transformers", "accelerate")
    found = {"python": platform.python_version()}
    for name in packages:
        with suppress(importlib.metadata.PackageNotFoundError):  # a source tree that is not installed
            found[name] = importlib.metadata.version(name)
    return found


def _sizes(checkpoint: Checkpoint) -> dict[str, int]:
    """Bytes of every file of the checkpoint, by its path relative to the checkpoint."""
    selector = pyarrow.fs.FileSelector(checkpoint.path, recursive=True, allow_not_found=True)
    files = [entry for entry in checkpoint.filesystem.get_file_info(selector) if entry.is_file]
    start = len(checkpoint.path.rstrip("/")) + 1
    return {entry.path[start:]: entry.size for entry in files if entry.path[start:] != MANIFEST}


def _hashes(checkpoint: Checkpoint, sizes: Mapping[str, int]) -> dict[str, str]:
    """XXH3-128 of every file: of the digests of its blocks, which threads read side by side."""
    blocks = [(name, start) for name, size in sizes.items() for start in range(0, size, _BLOCK)]
    hashes = {name: xxhash.xxh3_128() for name in sizes}
    with ThreadPoolExecutor(_THREADS) as threads:
        digests = threads.map(lambda block: _digest_of(checkpoint, *block), blocks)
        for (name, _), digest in zip(blocks, digests, strict=True):
            hashes[name].update(digest)
    return {name: each.hexdigest() for name, each in hashes.items()}


def _digest_of(checkpoint: Checkpoint, name: str, start: int) -> bytes:
    digest, left = xxhash.xxh3_128(), _BLOCK
    buffer = memoryview(bytearray(_READ if checkpoint.filesystem.type_name == "local" else _REMOTE_READ))
    with checkpoint.filesystem.open_input_file(f"{checkpoint.path}/{name}") as file:
        file.seek(start)
        while left and (read := file.readinto(buffer[:left])):
            digest.update(buffer[:read])
            left -= read
    return digest.digest()
