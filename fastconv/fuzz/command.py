"""``python -m fastconv fuzz``: jobs that search side by side, and what they found."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import queue
import random
import time
from collections import Counter
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..contract.errors import FastconvError
from .case import Case
from .client import Worker
from .operators import operators
from .report import print_finding, print_summary

__all__ = ["add_arguments", "run"]

#: A month.
_MOST_MINUTES = 31 * 24 * 60


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the ``fuzz`` command."""
    parser.add_argument(
        "--minutes", type=_minutes, default=5.0, metavar="M", help="how long to search (5)"
    )
    parser.add_argument("--seed", type=int, help="of what is drawn (default: a new one, printed)")
    parser.add_argument(
        "--ops",
        nargs="+",
        metavar="OP",
        help="operators, groups of them (dense, sparse), or MODULE:NAME of a table of one's own "
        "(all)",
    )
    parser.add_argument(
        "--kernels",
        choices=["all", "chosen"],
        default="all",
        help="force every able kernel in turn, or run the dispatched one alone (all)",
    )
    parser.add_argument("--jobs", type=_jobs, metavar="J", help="processes (every processor)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the summary there too")
    parser.add_argument("--case", metavar="JSON", help="run this one case again, and nothing else")


def _minutes(text: str) -> float:
    """Return a time that the search can end after."""
    minutes = float(text)
    if not 0 < minutes <= _MOST_MINUTES:
        raise argparse.ArgumentTypeError(f"got {text}, want above 0 and at most {_MOST_MINUTES}")
    return minutes


def _jobs(text: str) -> int:
    jobs = int(text)
    if jobs < 1:
        raise argparse.ArgumentTypeError(f"got {text}, want at least 1")
    return jobs


def run(arguments: argparse.Namespace) -> int:
    """Search, or repeat one case; return 1 where something failed."""
    if arguments.case is not None:
        return _repeat(arguments.case)
    missing = [name for name in ("hypothesis", "ml_dtypes") if find_spec(name) is None]
    if missing:
        raise FastconvError(
            f"fuzz needs {' and '.join(missing)}, which is not installed: "
            "pip install 'fastconv[fuzz]'"
        )
    names = _named(arguments.ops)
    seed = random.SystemRandom().getrandbits(31) if arguments.seed is None else arguments.seed
    jobs = arguments.jobs or len(os.sched_getaffinity(0))
    print(f"seed {seed}, {jobs} jobs, {arguments.minutes:g} minutes", flush=True)
    summary = _search(seed, jobs, names, arguments.kernels, arguments.minutes)
    print_summary(summary)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(summary, indent=1))
    return 1 if summary["failures"] else 0


def _named(words: list[str] | None) -> list[str]:
    """Return the operators that the words name."""
    known = operators()
    if not words:
        return list(known)
    chosen = []
    for word in words:
        if ":" in word:
            chosen.append(word)
            continue
        named = [n for n, operator in known.items() if word in (n, operator.group)]
        if not named:
            groups = sorted({operator.group for operator in known.values()})
            raise FastconvError(f"ops: got {word!r}, want one of {', '.join([*groups, *known])}")
        chosen += named
    return list(dict.fromkeys(chosen))


def _repeat(text: str) -> int:
    try:
        case = Case.loads(text)
    except (ValueError, TypeError) as error:
        raise FastconvError(f"case: got {text!r}, want a case's JSON: {error}") from None
    worker = Worker()
    try:
        report = worker.run(case)
    finally:
        worker.close()
    if report.failure is None:
        calls = sum(report.calls.values())
        print(f"no failure: {report.problems} problems, {calls} calls")
        return 0
    print_finding({"failure": asdict(report.failure), "case": case.dumps(), "repeats": True})
    return 1


def _search(seed: int, jobs: int, names: list[str], kernels: str, minutes: float) -> dict[str, Any]:
    """Run the jobs and put together what they tell."""
    context = multiprocessing.get_context("spawn")
    told: Any = context.Queue()
    begun = time.monotonic()
    processes = [
        context.Process(target=_job, args=(f"{seed}/{job}", names, kernels, 60 * minutes, told))
        for job in range(jobs)
    ]
    for process in processes:
        process.start()
    findings: dict[tuple[str, ...], dict[str, Any]] = {}
    totals: dict[str, Any] = {"cases": 0, "problems": Counter[str](), "calls": Counter[str]()}
    ended, interrupted = 0, False
    while ended < jobs:
        try:
            kind, value = told.get(timeout=5)
        except queue.Empty:
            if all(not process.is_alive() for process in processes):
                break
            continue
        except KeyboardInterrupt:  # the jobs had it too and tell their sums
            interrupted = True
            continue
        if kind == "finding":
            _add(findings, value)
        else:
            ended += 1
            for name, total in value.items():
                totals[name] += total
    for process in processes:
        process.join()
    return {
        "seed": seed,
        "jobs": jobs,
        "minutes": round((time.monotonic() - begun) / 60, 2),
        "cases": totals["cases"],
        "problems": sum(totals["problems"].values()),
        "calls": sum(totals["calls"].values()),
        "kernels": dict(totals["calls"].most_common()),
        "operators": dict(totals["problems"].most_common()),
        "failures": list(findings.values()),
        "complete": ended == jobs and not interrupted,
    }


def _add(findings: dict[tuple[str, ...], dict[str, Any]], value: dict[str, Any]) -> None:
    """Print a finding that is new; keep the shorter case of two that agree."""
    failure = value["failure"]
    key = (failure["op"], failure["kernel"], failure["kind"])
    known = findings.get(key)
    if known is None:
        print_finding(value)
        findings[key] = value
    elif (not known["repeats"], len(known["case"])) > (not value["repeats"], len(value["case"])):
        findings[key] = value


def _job(seed: str, names: list[str], kernels: str, seconds: float, told: Any) -> None:
    """Run one job in a process of its own."""
    from .drawing import Options
    from .hunt import Finding, Hunt

    def tell(finding: Finding) -> None:
        told.put(("finding", {**asdict(finding), "case": finding.case.dumps()}))

    hunt = Hunt(seed, names, Options(kernels), time.monotonic() + seconds, tell)
    try:
        hunt.run()
    except KeyboardInterrupt:
        pass
    finally:
        totals: dict[str, Any] = {
            "cases": hunt.cases,
            "problems": hunt.problems,
            "calls": hunt.calls,
        }
        told.put(("end", totals))
