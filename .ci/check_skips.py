"""Fail where a test was skipped because a package is missing: in CI every package is there.

Usage: ``python check_skips.py REPORT.xml`` on what ``pytest --junitxml`` wrote. A skip for another
reason (no CUDA device, another platform) passes. Nothing is printed unless a skip is refused, so
that pytest's own last lines stay last.
"""

from __future__ import annotations

import re
import sys
from xml.etree import ElementTree

MISSING_PACKAGE = re.compile(
    r"could not import|no module named|not importable|not installed|cannot be installed"
    r"|\b(missing|needs|requires|without) (the )?(python )?(package|library|module)"
    r"|\b(package|library|module)\b.*\b(missing|not (found|available))",
    re.IGNORECASE,
)


def refused_skips(report: str) -> list[str]:
    """Return a line for each test in a JUnit report that a missing package kept from running."""
    refused = []
    for case in ElementTree.parse(report).iter("testcase"):
        for skip in case.iter("skipped"):
            reason = skip.get("message", "")
            if reason == "collection skipped":  # a whole module; why stands in the text
                reason = skip.text or reason
            if MISSING_PACKAGE.search(reason):
                refused.append(f"{case.get('classname')}::{case.get('name')}: {reason}")
    return refused


def main(report: str) -> int:
    """Print the refused skips and return the exit status."""
    refused = refused_skips(report)
    if refused:
        print(f"\n{len(refused)} tests skipped for a missing package:", *refused, sep="\n  ")
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
