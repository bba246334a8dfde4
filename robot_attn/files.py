"""Atomic file replacement: a reader sees either the old file or the complete new one."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success, flush that file and move it to `path`.

    The temporary name keeps the ending of `path`, from which programs such as ffmpeg infer the format. If the
    block raises, the temporary file is removed and an existing file at `path` is unchanged.

    Args:
        path: file to write or replace.

    Yields:
        The temporary path to write to.

    Raises:
        OSError: the folder does not exist or is not writable, or the disk is full.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(
            f"expected {target} in an existing folder, got the folder {target.parent}, which does not exist: "
            "create it first"
        )
    if target.is_dir():
        raise IsADirectoryError(f"expected a file to write, got the folder {target}: name a file in it")
    temporary = target.with_name(f".{target.stem}.{secrets.token_hex(4)}.tmp{target.suffix}")
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, target)
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(temporary)):
            error.filename = str(target)  # the name that the caller knows
        raise
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()
