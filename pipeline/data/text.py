"""Read text files of rows as people have them: UTF-8 or UTF-16 with a mark, perhaps compressed; the rest is named."""

from __future__ import annotations

import codecs
import gzip
import re
import shlex
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

import google_crc32c

from pipeline.errors import DataError
from pipeline.inputs import open_file

GZIP = b"\x1f\x8b"
UTF_16 = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}  # as Excel's "Unicode Text"
_EXCEL = 'Save it in Excel as "CSV UTF-8 (Comma delimited)", and name that file'
_ARRAYS = "Write its arrays with numpy.savez('rows.npz', NAME=ARRAY, …), and name that file"
# Kinds of files by their first bytes, and what to do with each instead of reading it as text.
_KINDS = (
    (b"PK\x03\x04", "a ZIP archive, as Excel's .xlsx is one", f"{_EXCEL}; or unpack the archive"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook", _EXCEL),
    (b"\x89HDF", "an HDF5 file", _ARRAYS),
    (b"MATLAB 5.0 MAT", "a MATLAB file", _ARRAYS),
    (b"SQLite format 3\0", "a database", "Write its rows as CSV: sqlite3 -header -csv FILE 'select …' > rows.csv"),
    *(
        (bytes([0x80, protocol]), "a pickle, which could run code", "Write the rows as .npz, .csv, .jsonl or .parquet")
        for protocol in range(2, 6)
    ),
    (b"ARROW1", "an Arrow file", "Write it with pandas: read_feather(FILE).to_parquet('rows.parquet')"),
    (b"BZh", "compressed by bzip2", "Unpack it with bunzip2, or compress it with gzip"),
    (b"\xfd7zXZ", "compressed by xz", "Unpack it with unxz, or compress it with gzip"),
    (b"\x89PNG", "an image", "Name the folder of the images"),
    (b"\xff\xd8\xff", "an image", "Name the folder of the images"),
    (b"%PDF", "a PDF", "Write the rows as .csv"),
)


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a data file for reading; what gzip has compressed is read as what it was.

    Raises:
        DataError: there is no such file, it cannot be read, or it is damaged.
    """
    if not path.exists():
        raise DataError("no such file", where=path, next_step="Give the data file with --data")
    try:
        with open_file(path) as file:
            is_compressed = file.read(2) == GZIP
            file.seek(0)
            if is_compressed:
                with gzip.GzipFile(fileobj=cast(IO[bytes], file)) as unpacked:
                    yield cast(IO[bytes], unpacked)
            else:
                yield cast(IO[bytes], file)
    except (gzip.BadGzipFile, zlib.error, EOFError) as exc:
        raise DataError("the compressed file is damaged", where=path, got=exc, next_step="Copy it again") from exc
    except OSError as exc:
        raise DataError("the file cannot be read", where=path, got=exc.strerror or exc) from exc


def read_start(path: Path, size: int = 64) -> bytes:
    """Return the first bytes of a data file. Raises: as `opened`."""
    with opened(path) as file:
        return file.read(size)


def is_record_file(start: bytes) -> bool:
    """Return True if a file begins as a TFRecord does: with a length and its masked CRC-32C."""
    if len(start) < 12:
        return False
    _, stored = struct.unpack("<QI", start[:12])
    return bool(stored == masked_crc(start[:8]))


def masked_crc(data: bytes) -> int:
    """Return the CRC-32C as TFRecord stores it (tensorflow/core/lib/hash/crc32c.h)."""
    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def read_text(path: Path) -> str:
    """Read a file that must be text and not empty.

    Raises:
        DataError: the file is missing, empty, of another kind, or its bytes are not text.
    """
    with opened(path) as file:
        raw = file.read()
    encoding = UTF_16.get(raw[:2], "utf-8-sig")
    for start, kind, next_step in _KINDS:
        if raw.startswith(start):
            raise DataError(f"no text, but {kind}", where=path, wanted="text", next_step=next_step)
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as exc:
        # `exc.object`, not `raw`: the codec counts from behind a byte order mark.
        line = exc.object.count(b"\n", 0, exc.start) + 1
        raise DataError(
            "not UTF-8 text",
            where=f"{path}:{line}",
            got=f"byte 0x{exc.object[exc.start]:02x}",
            wanted="UTF-8",
            next_step=f"Excel often writes WINDOWS-1252: {_convert(path, 'WINDOWS-1252')}, and name that file",
        ) from exc
    if not text.strip("\ufeff \t\r\n"):
        raise DataError("the file is empty", where=path, got=f"{len(raw)} bytes", wanted="at least one row")
    _require_no_page(path, text)
    return text if "\n" in text else text.replace("\r", "\n")  # lines as Excel for the Mac ends them


def _convert(path: Path, encoding: str) -> str:
    better = path.with_name(f"{path.stem}.utf8{path.suffix}")
    return f"iconv -f {encoding} -t UTF-8 {shlex.quote(str(path))} > {shlex.quote(str(better))}"


def _require_no_page(path: Path, text: str) -> None:
    if re.match(r"\s*<(!doctype|html|head|\?xml)", text, re.IGNORECASE):
        raise DataError(
            "an HTML page, not a table", where=f"{path}:1", got=shorten(text), next_step="Download the file itself"
        )
    if text.startswith("version https://git-lfs.github.com/spec/"):
        raise DataError(
            "a pointer of Git LFS, not the data itself",
            where=path,
            next_step=f"Get the data: git lfs pull --include {shlex.quote(path.name)}",
        )
    if "\0" in text[:4096] and text.count("\0") > len(text) // 8:
        raise DataError(
            "no text: many of its characters are zero bytes",
            where=f"{path}:1",
            wanted="text",
            next_step=f"If it is UTF-16 without a mark: {_convert(path, 'UTF-16LE')}, and name that file",
        )


def shorten(text: object) -> str:
    """Return the first line of a text, quoted and not too long, for a message."""
    line = str(text).strip().split("\n", 1)[0]
    return repr(line if len(line) <= 60 else line[:57] + "...")
