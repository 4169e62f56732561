"""`python -m lpverify`."""

from lpverify.cli import entry

if __name__ == "__main__":
    entry()
