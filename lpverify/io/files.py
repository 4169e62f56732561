"""Files that are there whole or not at all, also when the disk is full or the process ends midway."""

import contextlib
import os
import time
from pathlib import Path


def is_special(path: str | os.PathLike[str]) -> bool:
    """Whether there is something that is no plain file: a device, a pipe, a folder."""
    return os.path.exists(path) and not os.path.isfile(path)


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes a file by way of a draft in the same folder, so that readers see the old content or the new.

    Where `path` is a symbolic link, the file that it names is replaced. What is no plain file, such as
    `/dev/stderr`, is written to and not replaced.

    Raises:
        OSError: It can't be written, closed or put in place; the old content is still there and no draft is.
    """
    try:
        if is_special(path):
            with open(path, "wb") as file:
                file.write(data)
        else:
            _replace(os.path.realpath(path), data)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), os.fspath(path)) from None


def check_writable(path: str | os.PathLike[str]) -> None:
    """Finds out whether `write_atomically` could work; changes nothing.

    Raises:
        OSError: It could not.
    """
    if is_special(path):
        open(path, "ab").close()
        return
    draft = _draft(os.path.realpath(path))
    open(draft, "xb").close()
    os.unlink(draft)


def _draft(path: str) -> str:
    """A name that nobody else uses; short, because the file's own may be as long as allowed."""
    return str(Path(path).with_name(f".lpverify-{os.getpid()}-{time.monotonic_ns()}.tmp"))


def _replace(path: str, data: bytes) -> None:
    draft = _draft(path)
    try:
        with open(draft, "xb") as file:  # closing it writes what is buffered, and raises what that raises
            file.write(data)
        os.replace(draft, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(draft)
        raise
