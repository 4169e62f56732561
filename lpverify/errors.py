"""The exception hierarchy; each class carries the exit code of the command line.

LpverifyError
├── InputError            a file or option is wrong                       (1)
│   ├── OnnxError         the network file
│   └── VnnlibError       the property file, with line and column
├── UnsupportedError      the network or query is fine, lpverify can't    (3)
├── SolverError           a backend answered something it must not      (70)
└── InternalError         an invariant of ours is broken                 (70)
"""


class LpverifyError(Exception):
    """Base of every error that lpverify raises on purpose."""

    exit_code = 70


class InputError(LpverifyError):
    """A file, an option or their combination is not usable."""

    exit_code = 1


class OnnxError(InputError):
    """The network file is unreadable or malformed."""


class VnnlibError(InputError):
    """The property file is malformed.

    Args:
        message: What is wrong.
        path: The file, if known.
        line: 1-based line, 0 when the error has no place.
        column: 1-based column.
    """

    def __init__(self, message: str, path: str = "", line: int = 0, column: int = 0) -> None:
        place = f"{path}:{line}:{column}: " if line else (f"{path}: " if path else "")
        super().__init__(place + message)
        self.line, self.column = line, column


class UnsupportedError(LpverifyError):
    """A valid network or query that lpverify can't treat."""

    exit_code = 3


class SolverError(LpverifyError):
    """A solver reported a state outside its documented ones."""


class InternalError(LpverifyError):
    """An invariant of lpverify does not hold; never turned into a verdict."""


def out_of_memory(error: BaseException | None) -> bool:
    """Whether that is behind an error; also in the words of torch and onnxruntime."""
    while error is not None:
        words = isinstance(error, RuntimeError) or type(error).__module__.startswith("onnxruntime")
        if isinstance(error, MemoryError) or (words and "alloc" in str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def one_line(error: BaseException) -> str:
    """What went wrong; the list of unsupported nodes keeps its lines."""
    text = str(error)
    if not isinstance(error, LpverifyError):
        text = f"{type(error).__name__}: {text}"
    return text if isinstance(error, UnsupportedError) else " ".join(text.split())
