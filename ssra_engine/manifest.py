"""manifest.json: what an output folder belongs to, whether its run has ended, and its records."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import xxhash

from ssra_engine.errors import StoreError
from ssra_engine.journal import Record

__all__ = ["MANIFEST", "START_AGAIN", "Manifest", "manifest_text", "read_manifest"]

MANIFEST = "manifest.json"

#: The mend of a folder that is beyond repair.
START_AGAIN = "Remove the output folder and run again, or give another --output."

_VERSION = 1

#: Facts that readers of a manifest rely on, by kind of record.
_FACTS: Mapping[str, Mapping[str, type]] = {
    "corpus": {"documents": int, "rejected": int},
    "part": {"section": str, "part": int, "files": dict},
}


@dataclass(frozen=True)
class Manifest:
    """What manifest.json says.

    Attributes:
        state: "finished" when the run has ended.
        fingerprint: all that the rows follow from: a JSON tree of text and numbers.
        records: facts recorded so far, oldest first.
    """

    state: Literal["running", "finished"]
    fingerprint: dict[str, Any]
    records: list[Record]

    def find(self, kind: str, **facts: Any) -> Record:
        """The newest record of a kind with these facts.

        Raises:
            StoreError: there is none.
        """
        for record in reversed(self.records):
            if record["kind"] == kind and all(record.get(k) == v for k, v in facts.items()):
                return record
        raise StoreError(f"{MANIFEST}: there is no record of kind '{kind}'. {START_AGAIN}")


def manifest_text(manifest: Manifest) -> str:
    """The file's content: one record a line, and a checksum over the records."""
    head = {
        "version": _VERSION,
        "state": manifest.state,
        "fingerprint": manifest.fingerprint,
        "records_xxh3": _digest(manifest.records),
    }
    lines = [json.dumps(record, ensure_ascii=False) for record in manifest.records]
    text = json.dumps(head, ensure_ascii=False, indent=1).removesuffix("\n}")
    return text + ',\n "records": [\n  ' + ",\n  ".join(lines) + "\n ]\n}\n"


def read_manifest(folder: Path) -> Manifest | None:
    """Read the manifest of an output folder, or None where there is none.

    Raises:
        StoreError: it is damaged, of another program, or of another version of this one.
    """
    path = folder / MANIFEST
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        version = tree["version"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise StoreError(f"{path}: not the manifest of a run. {START_AGAIN}") from error
    if version != _VERSION:
        raise StoreError(f"{path}: written by another version of this program. {START_AGAIN}")
    state, fingerprint, records = (tree.get(k) for k in ("state", "fingerprint", "records"))
    sound = (
        state in ("running", "finished")
        and isinstance(fingerprint, dict)
        and isinstance(records, list)
        and all(map(_is_record, records))
        and tree.get("records_xxh3", _digest(records)) == _digest(records)
    )
    if not sound:
        raise StoreError(f"{path}: the manifest is damaged. {START_AGAIN}")
    return Manifest(state, fingerprint, records)


def _digest(records: list[Record]) -> str:
    text = json.dumps(records, ensure_ascii=False, separators=(",", ":"))
    return xxhash.xxh3_64_hexdigest(text.encode("utf-8", "surrogatepass"))


def _is_record(record: Any) -> bool:
    if not isinstance(record, dict) or not isinstance(record.get("kind"), str):
        return False
    facts = _FACTS.get(record["kind"], {})
    files = record.get("files", {})
    return all(type(record.get(name)) is kind for name, kind in facts.items()) and (
        isinstance(files, dict) and all(_is_file(name, file) for name, file in files.items())
    )


def _is_file(name: str, file: Any) -> bool:
    """Whether a file of a record lies in the folder and has a size and a checksum."""
    path = PurePosixPath(name)
    inside = bool(path.parts) and not path.is_absolute() and ".." not in path.parts
    return (
        inside
        and "\0" not in name
        and isinstance(file, dict)
        and type(file.get("bytes")) is int
        and isinstance(file.get("xxh3"), str)
    )
