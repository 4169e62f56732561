import os
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))

# A shell starts jobs in the background with SIGINT ignored, and programs that tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci")


@pytest.fixture(scope="session")
def benchmarks() -> Path:
    folder = os.environ.get("LPVERIFY_BENCHMARKS")
    if not folder:
        pytest.skip("LPVERIFY_BENCHMARKS is not set")
    return Path(folder)
