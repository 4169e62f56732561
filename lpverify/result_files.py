"""Files that options of a command ask for: checked before the work, written after it."""

from collections.abc import Callable, Mapping

from lpverify.errors import InputError
from lpverify.io.files import write_atomically
from lpverify.io.results import ReportFile


def result_files(wanted: Mapping[str, str | None]) -> dict[str, ReportFile]:
    """The files by their options.

    Args:
        wanted: Paths by option; None: not wanted.

    Raises:
        InputError: One can't be written, or two are the same.
    """
    files = {option: ReportFile(path) for option, path in wanted.items() if path is not None}
    if len({file.path for file in files.values()}) < len(files):
        raise InputError(f"{', '.join(files)} name the same file")
    for file in files.values():
        file.check()
    return files


def write_results(
    files: Mapping[str, ReportFile], content: Callable[[str], bytes], tell: Callable[[str], None]
) -> list[str]:
    """Writes them all, each whole or not at all; returns the options whose files failed.

    Args:
        files: By option.
        content: Of an option's file.
        tell: Gets a word about each that fails.
    """
    failed = []
    for option, file in files.items():
        try:
            write_atomically(file.path, content(option))
        except OSError as error:
            tell(f"{file.path}: {error.strerror or error}")
            failed.append(option)
    return failed
