"""What a training was given, so that another can be compared with it: fingerprints of datasets and of base models.

By content, not by name: the same rows have the same digest wherever they lie. Nothing here draws a random number, or
asks a dataset for a row that it would have to make. Runs in rank 0.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor

WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "config.json")
DIGEST_LENGTH = 32  # hexadecimal digits of SHA-256; MLflow shows at most 36
HASHED_ROWS = 1_000  # at a time
HASHED_BYTES = 256 * 2**20  # of a dataset; of a larger one Hugging Face's own fingerprint counts
UNKNOWN = "unknown"  # the digest of what cannot be read without side effects


def of_dataset(dataset: Any) -> dict[str, Any]:
    """A dataset's name, digest, rows, columns and source.

    Args:
        dataset: of Hugging Face, or of PyTorch's `TensorDataset` and `Subset`. Of any other, only class and length are
            known, and the digest is "unknown".
    """
    found: dict[str, Any] = {
        "name": "",
        "digest": UNKNOWN,
        "rows": _length(dataset),
        "columns": {},
        "source": "",
        "revision": None,
    }
    if _is_a(dataset, "datasets", "Dataset"):
        info = dataset.info
        return found | {
            "name": str(info.dataset_name or info.builder_name or ""),
            "digest": _of_rows(dataset),
            "columns": {name: str(getattr(kind, "dtype", kind)) for name, kind in dataset.features.items()},
            "source": str(info.homepage or next(iter(info.download_checksums or {}), "")),
            "revision": str(info.version) if info.version else None,
        }
    tensors = getattr(dataset, "tensors", None)
    if _is_a(dataset, "torch", "TensorDataset") and isinstance(tensors, tuple):
        columns = {str(place): f"{each.dtype}{list(each.shape[1:])}" for place, each in enumerate(tensors)}
        return found | {"digest": _of_tensors(tensors), "columns": columns, "source": "tensors"}
    if _is_a(dataset, "torch", "Subset"):
        whole = of_dataset(dataset.dataset)
        indices = repr(list(dataset.indices))
        digest = UNKNOWN if whole["digest"] == UNKNOWN else _digest([whole["digest"].encode(), indices.encode()])
        return whole | {"digest": digest, "rows": len(dataset)}
    return found | {"source": f"{type(dataset).__module__}.{type(dataset).__qualname__}"}


def of_model(model: Any) -> dict[str, Any] | None:
    """The name, digest and revision of the model that a training starts from; None if it is none of Transformers.

    Args:
        model: with a configuration that says what it was loaded from. One that was loaded from nothing has the digest
            of its configuration.
    """
    config = getattr(model, "config", None)
    if config is None or not hasattr(config, "to_diff_dict"):
        return None
    name = str(getattr(config, "_name_or_path", "") or "")
    found = {"name": "/".join(Path(name).parts[-2:]) if os.path.isabs(name) else name, "source": name, "revision": None}
    parameters = sum(each.numel() for each in model.parameters())
    revision = getattr(config, "_commit_hash", None)
    files = _weights(name, revision) if name else []
    if files:
        hashes = [f"{path.name} {_of_file(*_identity(path))}".encode() for path in files]
        return found | {"digest": _digest(hashes), "revision": revision, "rows": None, "parameters": parameters}
    values = {key: value for key, value in config.to_diff_dict().items() if key != "transformers_version"}
    made_from = {"name": name or type(model).__name__, "source": name or "its configuration", "revision": revision}
    text = revision or json.dumps(values, sort_keys=True, default=str)
    return found | made_from | {"digest": _digest([text.encode()]), "rows": None, "parameters": parameters}


# ---- inside


def _of_rows(dataset: Dataset) -> str:
    """The digest of a Hugging Face dataset's rows, remembered by the fingerprint that it has in this process."""
    size = dataset.data.nbytes * len(dataset) / max(1, dataset.data.num_rows)
    if size > HASHED_BYTES:
        return _digest([dataset._fingerprint.encode()])
    known: dict[str, str] = _of_rows.__dict__
    if dataset._fingerprint not in known:
        known[dataset._fingerprint] = _digest(_serialised(dataset))
    return known[dataset._fingerprint]


def _serialised(dataset: Dataset) -> Iterator[bytes]:
    """The rows in Arrow's format, without what Hugging Face notes beside them."""
    import pyarrow as pa

    for table in dataset.with_format("arrow").iter(HASHED_ROWS):
        whole = table.replace_schema_metadata(None).combine_chunks()
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, whole.schema) as stream:
            stream.write_table(whole)
        yield sink.getvalue().to_pybytes()


def _of_tensors(tensors: tuple[Tensor, ...]) -> str:
    if sum(each.nbytes for each in tensors) > HASHED_BYTES or any(each.device.type != "cpu" for each in tensors):
        return UNKNOWN
    import torch

    def content(each: Tensor) -> bytes:
        raw: bytes = each.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        return f"{each.dtype} {tuple(each.shape)} ".encode() + raw

    return _digest(content(each) for each in tensors)


def _weights(name: str, revision: str | None) -> list[Path]:
    """The files of a model, in its folder or in the cache of the hub."""
    folder = Path(name)
    if not folder.is_dir():
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(name, "config.json", revision=revision)
        if not isinstance(cached, str):
            return []
        folder = Path(cached).parent
    return sorted({path for pattern in WEIGHTS for path in folder.glob(pattern)})


def _identity(path: Path) -> tuple[str, int, int]:
    state = path.stat()
    return str(path.resolve()), state.st_size, state.st_mtime_ns


@functools.lru_cache(maxsize=64)
def _of_file(path: str, size: int, changed_at: int) -> str:
    """The SHA-256 of a file; those of large files in the hub's cache are their names there."""
    name = Path(path).name
    if len(name) == 64 and "blobs" in Path(path).parts:
        return name
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(parts: Any) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:DIGEST_LENGTH]


def _length(dataset: Any) -> int | None:
    try:
        return len(dataset)
    except (TypeError, NotImplementedError):
        return None


def _is_a(value: Any, package: str, name: str) -> bool:
    """By name, since neither package is imported only for this."""
    return any(each.__name__ == name and each.__module__.partition(".")[0] == package for each in type(value).__mro__)
