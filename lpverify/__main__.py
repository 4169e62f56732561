"""`python -m lpverify`."""

from lpverify.supervisor import entry

if __name__ == "__main__":
    entry()
