"""What a run says: each failure when it is found, and a summary."""

from __future__ import annotations

import shlex
from typing import Any

from .case import Case
from .render import render

__all__ = ["print_finding", "print_summary"]


def print_finding(finding: dict[str, Any]) -> None:
    """Print a failure, its smallest case for a reader, and the command that repeats it."""
    failure = finding["failure"]
    kernel = f" by {failure['kernel']}" if failure["kernel"] else ""
    print(f"\n{failure['op']}{kernel}: {failure['kind']}")
    for line in failure["message"].splitlines():
        print(f"  {line}")
    print(render(Case.loads(finding["case"])))
    if finding["repeats"]:
        print(f"  python -m fastconv fuzz --case {shlex.quote(finding['case'])}", flush=True)
    else:
        print(
            f"  not repeated by a fresh process, so it depends on the cases before it: "
            f"{len(finding['history'])} of them are in {_history_file(finding)}",
            flush=True,
        )


def _history_file(finding: dict[str, Any]) -> str:
    """Write the cases that led to a failure, one a line, and return the file's name."""
    name = "fuzz-" + finding["seed"].replace("/", "-") + ".jsonl"
    with open(name, "w", encoding="utf-8") as file:
        file.writelines(line + "\n" for line in finding["history"])
    return name


def print_summary(summary: dict[str, Any]) -> None:
    """Print what a run tried and what failed."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    calls = Table("kernel", "calls", title="Calls", title_justify="left")
    for kernel, count in summary["kernels"].items():
        calls.add_row(kernel, f"{count:,}")
    console.print(calls)
    problems = Table("operator", "problems", title="Problems", title_justify="left")
    for operator, count in summary["operators"].items():
        problems.add_row(operator, f"{count:,}")
    console.print(problems)
    if summary["failures"]:
        failed = Table("operator", "kernel", "failure", "times", title="Failures")
        for finding in summary["failures"]:
            failure = finding["failure"]
            told = (failure["op"], failure["kernel"], failure["kind"], str(finding["count"]))
            failed.add_row(*told)
        console.print(failed)
    print(
        f"seed {summary['seed']}: {summary['cases']:,} cases, {summary['problems']:,} problems, "
        f"{summary['calls']:,} calls in {summary['minutes']} minutes by {summary['jobs']} jobs; "
        f"{len(summary['failures'])} failures" + ("" if summary["complete"] else ", cut short")
    )
