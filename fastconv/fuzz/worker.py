"""The process that runs cases: ``python -m fastconv.fuzz.worker MEGABYTES``.

Cases come as lines of JSON on stdin and reports go as lines of JSON to stdout; before each call a
line says where the process is, so that its end tells which call ended it.
"""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import sys
from dataclasses import asdict
from typing import Any

from .case import Case

__all__ = ["main"]


def main(limit: int) -> int:
    """Serve cases until stdin ends.

    Parameters
    ----------
    limit : int
        Most megabytes of address space; 0 for no limit.
    """
    faulthandler.enable()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints is no answer

    def say(**told: Any) -> None:
        answers.write(json.dumps(told) + "\n")
        answers.flush()

    if limit:
        resource.setrlimit(resource.RLIMIT_AS, (limit << 20, limit << 20))
    from .compiling import compiler
    from .execution import run_case

    compiler.listen(lambda begins: say(compiling=begins))
    say(ready=True)
    for line in sys.stdin:
        case = Case.loads(line)
        report = run_case(case, lambda step, kernel: say(step=step, kernel=kernel))
        failure = report.failure
        say(
            done=True,
            failure=None if failure is None else asdict(failure),
            problems=report.problems,
            calls=dict(report.calls),
            resident=_resident(),
        )
    return 0


def _resident() -> int:
    """Return the megabytes of memory that this process holds."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
