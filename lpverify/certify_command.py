"""One `lpverify certify`: arguments to a run, a table and files."""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from lpverify.certify_options import RANGE
from lpverify.config import Config
from lpverify.errors import InputError
from lpverify.io.onnx import load_model
from lpverify.io.results import ReportFile
from lpverify.limit_options import model_limits
from lpverify.result_files import result_files, write_results
from lpverify.robustness.certification import Certification
from lpverify.robustness.data.normalisation import normalised
from lpverify.robustness.data.reading import read_samples
from lpverify.robustness.evidence import Verdict
from lpverify.robustness.margins import classes_of
from lpverify.robustness.plan import Plan
from lpverify.robustness.progress_bar import ProgressBar
from lpverify.robustness.report.charts import require_report
from lpverify.robustness.report.data import as_csv, as_json, as_text
from lpverify.robustness.report.html import report_html
from lpverify.robustness.run import Status
from lpverify.robustness.setup import Setup
from lpverify.robustness.smoothing.settings import SmoothingSettings
from lpverify.robustness.threat import Threat
from lpverify.search.engines import usable_cores

INTERRUPTED = 130


def run(args: argparse.Namespace, put: Callable[[str], None], tell: Callable[[str], None]) -> int:
    """Runs the command and returns the exit code.

    Args:
        args: Of `certify_options.certify_parser`.
        put: Writes text to stdout.
        tell: Writes a line to stderr.

    Raises:
        InputError: A file or an option is wrong, or a result can't be written.
        UnsupportedError: The network, or a method on it.
    """
    files = _files(args)
    setup = _setup(args)
    bar = _Bar(ProgressBar(sys.stderr, not args.quiet))
    try:
        found = setup.perform(args.store, bar.update, partial=True)
    finally:
        bar.close()
    put(as_text(found))
    failed = write_results(files, lambda option: _content(found, option), tell)
    if failed:
        raise InputError(f"can't write what {', '.join(failed)} asks for")
    return 0 if found.complete else INTERRUPTED


def _setup(args: argparse.Namespace) -> Setup:
    clip = None if args.clip is None else (Fraction(args.clip[0]), Fraction(args.clip[1]))
    limits = model_limits(args)
    model = normalised(load_model(args.network, limits=limits), args.mean, args.std, limits)
    threat = Threat(classes_of(model), args.norm, clip, args.targets)
    noise = (args.sigma, args.n0, args.n, args.alpha, args.seed)
    smoothing = None if args.sigma is None else SmoothingSettings(*noise)
    reading = {"labels": args.labels, "label_column": args.label_column, "divide": args.divide}
    samples = read_samples(model, args.data, **reading, clip=clip, limit=args.limit)
    jobs = usable_cores() if args.jobs is None else args.jobs
    about = (args.time_per_sample, args.spare, jobs, args.seed, not args.no_attack)
    plan = Plan(*about, _most(args, clip), smoothing, Config(seed=args.seed))
    methods = tuple(dict.fromkeys(args.method or ["ladder"]))
    return Setup(model, samples, threat, tuple(sorted(set(args.eps))), methods, plan, args.data)


def _most(args: argparse.Namespace, clip: tuple[Fraction, Fraction] | None) -> Fraction | None:
    if args.radius is None:
        return None
    if args.radius != RANGE:
        return Fraction(args.radius)
    if clip is None:
        raise InputError("--radius needs a largest radius where there is no --clip")
    return clip[1] - clip[0]


def _files(args: argparse.Namespace) -> dict[str, ReportFile]:
    """The files that are wanted, by their options; all can be written."""
    if args.report is not None:
        require_report()
    return result_files({"--report": args.report, "--json": args.json, "--csv": args.csv})


def _content(found: Certification, option: str) -> bytes:
    text = {"--report": report_html, "--json": as_json, "--csv": as_csv}[option](found)
    return text.encode(errors="surrogateescape")


@dataclass
class _Bar:
    """A run's reports on the progress bar."""

    bar: ProgressBar
    phase: str = ""

    def update(self, status: Status) -> None:
        """Shows how far it is."""
        counts: dict[Verdict, int] = {
            "proven": status.proven,
            "refuted": status.refuted,
            "unknown": status.tried,
        }
        if status.phase != self.phase:
            self.phase = status.phase
            self.bar.start(status.phase, status.total, counts)
        self.bar.show(counts)

    def close(self) -> None:
        """Removes it."""
        self.bar.close()
