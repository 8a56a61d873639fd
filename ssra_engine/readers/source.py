"""From what a user typed to an ordered list of files, each of known format."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import pyarrow as pa
import xxhash
from pyarrow import fs

from ssra_engine.errors import DataError

__all__ = ["Format", "Source", "files_key", "find_sources", "translated"]

Format = Literal["arrow file", "arrow stream", "parquet", "jsonl", "csv", "tsv"]

_SUFFIXES: dict[str, Format] = {
    ".arrow": "arrow file",
    ".feather": "arrow file",
    ".ipc": "arrow file",
    ".arrows": "arrow stream",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
}
_MAGIC: tuple[tuple[bytes, Format], ...] = (
    (b"ARROW1", "arrow file"),
    (b"\xff\xff\xff\xff", "arrow stream"),
    (b"PAR1", "parquet"),
)
#: Formats that people pass by mistake, and how to make something readable of them.
_FOREIGN: tuple[tuple[bytes, str, str], ...] = (
    (b"FEA1", "a Feather version 1 file", "Write it again as Feather version 2 (Arrow IPC)"),
    (b"\x1f\x8b", "compressed with gzip", "Decompress it with gunzip"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "Decompress it with unzstd"),
    (b"BZh", "compressed with bzip2", "Decompress it with bunzip2"),
    (b"PK\x03\x04", "a zip archive or a spreadsheet", "Export its table as CSV or Parquet"),
    (b"SQLite format 3", "an SQLite database", "Export its table as CSV or Parquet"),
    (b"PARE", "an encrypted Parquet file", "Write it again without encryption"),
    (b"ORC", "an ORC file", "Write it again as Parquet"),
    (b"Obj\x01", "an Avro file", "Write it again as Parquet"),
    (b"\x89HDF", "an HDF5 file", "Write it again as Parquet"),
    (b"\xff\xfe", "UTF-16 text", "Convert it with iconv -f UTF-16 -t UTF-8"),
    (b"\xfe\xff", "UTF-16 text", "Convert it with iconv -f UTF-16 -t UTF-8"),
)
_FORMATS = "Give an Arrow, Parquet, JSONL (.jsonl) or CSV (.csv, .tsv) file"


_DAMAGED = "The file is damaged, cut short or not what its name says: write it again"


@dataclass(frozen=True)
class Source:
    """One file to read.

    Attributes:
        name: what messages call it, close to what the user typed.
        path: the file inside `filesystem`.
        filesystem: where it lives.
        size: bytes.
        mtime_ns: time of the last change, where the file system knows it.
        format: how it is read, by its first bytes and then by its name.
    """

    name: str
    path: str
    filesystem: fs.FileSystem
    size: int
    mtime_ns: int | None
    format: Format

    @property
    def by_line(self) -> bool:
        """Whether the places of its rows are line numbers (from 1) and not row numbers (from 0)."""
        return self.format in ("jsonl", "csv", "tsv")

    @property
    def local(self) -> bool:
        """Whether it is a file of this machine."""
        return isinstance(self.filesystem, fs.LocalFileSystem)

    def fingerprint(self) -> bytes:
        """16 bytes that change when the content does.

        XXH3-128 of the bytes of a local file; of the size and time of change of a remote one.

        Raises:
            DataError: the file cannot be read.
        """
        state = xxhash.xxh3_128()
        if not self.local:
            with translated(self.name, "a file"):
                now = self.filesystem.get_file_info(self.path)
            state.update(f"{now.size}:{now.mtime_ns}".encode())
            return state.digest()
        with (
            translated(self.name, "a file"),
            self.filesystem.open_input_stream(self.path, compression=None) as file,
        ):
            while chunk := file.read(1 << 20):
                state.update(chunk)
        return state.digest()

    @property
    def format_name(self) -> str:
        """The format in words."""
        names = {"jsonl": "JSON lines", "parquet": "Parquet", "csv": "CSV", "tsv": "TSV"}
        return names.get(self.format) or f"an {self.format.replace('arrow', 'Arrow')}"

    def translated(self) -> AbstractContextManager[None]:
        """Turn what pyarrow and the system raise about this file's content into `DataError`."""
        return translated(self.name, self.format_name)

    def error(
        self, problem: str, mend: str, *, column: str | None = None, place: int | None = None
    ) -> DataError:
        """The error that names this file and, where known, the column and the row or line."""
        row, line = (None, place) if self.by_line else (place, None)
        return DataError(problem, file=self.name, column=column, row=row, line=line, mend=mend)


@contextmanager
def translated(name: str, what: str, mend: str = _DAMAGED) -> Iterator[None]:
    """Turn what pyarrow and the operating system raise into a `DataError` about file `name`."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError, EOFError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else "?"
        raise DataError(
            f"cannot be read as {what}: {reason}",
            file=name,
            mend=mend,
        ) from error


def files_key(inputs: Sequence[str | Path]) -> str:
    """What changes when the content of any of the inputs' files does; empty for no inputs.

    Raises:
        DataError: as `find_sources`, or a file cannot be read.
    """
    sources = find_sources(inputs) if inputs else ()
    return " ".join(source.fingerprint().hex() for source in sources)


def find_sources(inputs: Sequence[str | Path]) -> tuple[Source, ...]:
    """The files behind `inputs`, in the order given; a folder's and a glob's files are sorted.

    An input is a file, a folder (its data files by name, at any depth; names that start with "."
    or "_" are skipped, and so is .json, which in a folder is seldom data), a glob, or a URI that
    `pyarrow.fs` understands, for any of these. The first bytes of each file are read.

    Raises:
        DataError: nothing there, a folder or glob without data files, a file given twice, an empty
            file, or a format that is not supported.
    """
    sources: list[Source] = []
    seen: set[tuple[str, str]] = set()
    for given in inputs:
        for name, filesystem, info in _expand(str(given)):
            key = (filesystem.type_name, info.path)
            if key in seen:
                raise DataError("the file is given twice", file=name, mend="Name every file once")
            seen.add(key)
            sources.append(_source(name, filesystem, info))
    if not sources:
        raise DataError("no input files", mend=_FORMATS)
    return tuple(sources)


def _expand(given: str) -> Iterator[tuple[str, fs.FileSystem, fs.FileInfo]]:
    # A URI may carry credentials: messages show it without.
    shown = re.sub(r"//[^/@]*@", "//", given.partition("?")[0]) if "://" in given else given
    scheme = shown.partition("://")[0] if "://" in given else None
    with translated(shown, "a file or folder", "Check the path, the permissions, the network"):
        if scheme is None:
            filesystem = fs.LocalFileSystem()
            found, searched = _local(given, filesystem)
        else:
            filesystem, found, searched = _remote(given)
    if not found:
        raise DataError(f"the {searched} holds no data files", file=shown, mend=_FORMATS)
    for info in found:
        if info.type == fs.FileType.NotFound:
            raise DataError("no such file or folder", file=shown, mend="Check the path")
        yield info.path if scheme is None else f"{scheme}://{info.path}", filesystem, info


def _local(given: str, filesystem: fs.FileSystem) -> tuple[list[fs.FileInfo], str]:
    if glob.has_magic(given) and not Path(given).exists():
        infos = filesystem.get_file_info(sorted(glob.glob(given, recursive=True)))
        return [info for info in infos if info.type == fs.FileType.File], "glob"
    return _file_or_folder(given, filesystem)


def _remote(given: str) -> tuple[fs.FileSystem, list[fs.FileInfo], str]:
    address, mark, options = given.partition("?")
    wildcard = re.search(r"[*\[]", address)
    cut = address.rindex("/", 0, wildcard.start()) + 1 if wildcard else len(address)
    filesystem, base = fs.FileSystem.from_uri(address[:cut] + mark + options)
    if not wildcard:
        return filesystem, *_file_or_folder(base, filesystem)
    base = base.rstrip("/")
    expression = _glob_expression(f"{base}/{address[cut:]}")
    selector = fs.FileSelector(base, recursive="/" in address[cut:] or "**" in address[cut:])
    infos = [
        info
        for info in filesystem.get_file_info(selector)
        if info.type == fs.FileType.File
        and expression.fullmatch(info.path)
        and "/." not in info.path[len(base) :]  # as the local glob
    ]
    return filesystem, sorted(infos, key=lambda info: str(info.path)), "glob"


def _file_or_folder(path: str, filesystem: fs.FileSystem) -> tuple[list[fs.FileInfo], str]:
    info = filesystem.get_file_info(path)
    folder = info.type == fs.FileType.Directory
    return (_folder(filesystem, path) if folder else [info]), "folder"


def _folder(filesystem: fs.FileSystem, path: str) -> list[fs.FileInfo]:
    depth = len(PurePosixPath(path).parts)
    found = []
    for info in filesystem.get_file_info(fs.FileSelector(path, recursive=True)):
        hidden = any(part[0] in "._" for part in PurePosixPath(info.path).parts[depth:])
        suffix = PurePosixPath(info.path).suffix.lower()
        if info.type == fs.FileType.File and not hidden and suffix in _SUFFIXES.keys() - {".json"}:
            found.append(info)
    return sorted(found, key=lambda info: str(info.path))


def _glob_expression(pattern: str) -> re.Pattern[str]:
    """A glob of paths as a regular expression: "**" crosses folders, "*" does not."""
    wild = {"**": ".*", "**/": "(?:.*/)?", "*": "[^/]*"}
    pieces = re.split(r"(\*\*/?|\*|\[[^\]]+\])", pattern)
    return re.compile(
        "".join(
            wild.get(piece, piece.replace("[!", "[^", 1) if piece[:1] == "[" else re.escape(piece))
            for piece in pieces
        )
    )


def _source(name: str, filesystem: fs.FileSystem, info: fs.FileInfo) -> Source:
    if info.type != fs.FileType.File:
        raise DataError("not a regular file", file=name, mend=_FORMATS)
    if info.size == 0:
        raise DataError("the file is empty", file=name, mend="Write it again, or leave it out")
    with (
        translated(name, "a file"),
        filesystem.open_input_stream(info.path, compression=None) as file,
    ):
        head = file.read(4096)
    return Source(name, info.path, filesystem, info.size, info.mtime_ns, _sniff(name, head))


def _sniff(name: str, head: bytes) -> Format:
    """Format by the first bytes, then by the name."""
    for magic, known in _MAGIC:
        if head.startswith(magic):
            return known
    for magic, what, mend in _FOREIGN:
        if head.startswith(magic):
            raise DataError(f"the file is {what}", file=name, mend=mend)
    named = _SUFFIXES.get(PurePosixPath(name).suffix.lower())
    if named in ("arrow file", "arrow stream", "parquet"):
        raise DataError(
            f"the name says {named}, the content does not (it starts with {head[:6]!r})",
            file=name,
            mend="The file is damaged or foreign: write it again, or give it its right name",
        )
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if start == b"[" and named in (None, "jsonl"):
        raise DataError(
            "the file is one JSON array, not JSON lines",
            file=name,
            mend="Write one object a line, as jq -c '.[]' does",
        )
    if start == b"{" and named is None:
        return "jsonl"
    if named is None:
        raise DataError("the format is not known", file=name, mend=_FORMATS)
    return named
