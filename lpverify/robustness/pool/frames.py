"""Messages between a pool and its workers: eight bytes that tell the length, then a pickle.

Pickles run code, so they come from processes of one's own alone, by pipes that nobody else has.
"""

import os
import pickle

LENGTH_BYTES = 8
CHUNK_BYTES = 2**20


def framed(value: object) -> bytes:
    """What is sent for an object."""
    content = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    return len(content).to_bytes(LENGTH_BYTES) + content


def write(pipe: int, frame: bytes) -> None:
    """Sends a frame.

    Raises:
        OSError: The other side is gone.
    """
    left = memoryview(frame)
    while left:
        left = left[os.write(pipe, left[:CHUNK_BYTES]) :]


def read(pipe: int) -> bytes:
    """Waits for the pickle of the next frame.

    Raises:
        EOFError: The other side is gone, maybe in the middle of a frame.
    """
    return _bytes(pipe, int.from_bytes(_bytes(pipe, LENGTH_BYTES)))


def _bytes(pipe: int, count: int) -> bytes:
    parts = []
    while count:
        part = os.read(pipe, min(count, CHUNK_BYTES))
        if not part:
            raise EOFError
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
