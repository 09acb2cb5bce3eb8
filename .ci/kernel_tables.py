"""Write README's table of kernels from the registry: ``python .ci/kernel_tables.py``.

Names and their order are the registry's. What a kernel is and when it wins is said once, where its
code is: in the docstring of the module that its spec names, whose first line is the title and one
sentence of which reads "Wins where ...". A kernel of several in a module has a sentence of its own:
"`name`, what it is, wins where ...". A test compares README with this.
"""

from __future__ import annotations

import ast
import importlib.util
import itertools
import re
from collections.abc import Iterable
from pathlib import Path

from fastconv import dispatch
from fastconv.contract.spec import KernelSpec

README = Path(__file__).resolve().parents[1] / "README.md"
START, END = "<!-- kernels: python .ci/kernel_tables.py -->", "<!-- end of kernels -->"
#: The sentence, up to what explains it.
_WINS = re.compile(r"(?:(?:`(\w+)`(?:, ([^`]+?),)?|It) wins|\bWins) (.+?)(?=[.:;](?:[\s:]|$))")


def docstring(spec: KernelSpec) -> str:
    """Return the docstring of a kernel's module, which is not imported."""
    module = importlib.util.find_spec(spec.target.partition(":")[0])
    assert module is not None and module.origin is not None
    return ast.get_docstring(ast.parse(Path(module.origin).read_text(encoding="utf-8"))) or ""


def prose(text: str) -> str:
    """Return a docstring as one line, without what it says in parentheses."""
    return re.sub(r" \([^()]*\)", "", " ".join(text.split())).replace("``", "`")


def what_and_when(spec: KernelSpec) -> tuple[str, str]:
    """Return what a kernel is and when it wins; "" where its module does not say."""
    text = docstring(spec)
    found = {name: (what, when) for name, what, when in _WINS.findall(prose(text))}
    what, when = found.get(spec.name.rpartition(".")[2], found.get("", ("", "")))
    title = " ".join(text.partition("\n\n")[0].split()).rstrip(".")
    return what[:1].upper() + what[1:] or title, when


def _row(specs: list[KernelSpec]) -> str:
    """Return the row of kernels that are alike: their names, the first in full."""
    first, *others = names = [spec.name for spec in specs]
    words = zip(*(name.split("_") for name in names), strict=False)
    alike = itertools.takewhile(lambda each: len(set(each)) == 1, words)
    shared = "_".join(each[0] for each in alike)
    names = [first, *(name.removeprefix(shared) for name in others)]
    kinds = {(spec.op, spec.device) for spec in specs}
    alone = not any((s.op, s.device) in kinds and s not in specs for s in dispatch.kernels())
    what, when = what_and_when(specs[0])
    when = when or ("the only one of its operator" if alone else "")
    cells = (", ".join(f"`{name}`" for name in names), what.replace("|", r"\|"), when)
    return f"| {' | '.join(cells)} |"


def table(specs: Iterable[KernelSpec]) -> str:
    """Return the table of kernels as Markdown; those that are described alike share a row."""
    groups: dict[tuple[str, tuple[str, str]], list[KernelSpec]] = {}
    for spec in specs:
        groups.setdefault((docstring(spec), what_and_when(spec)), []).append(spec)
    rows = [_row(group) for group in groups.values()]
    return "\n".join(("| kernel | what it is | wins |", "|---|---|---|", *rows))


def with_table(text: str) -> str:
    """Return README's text with the table between its marks."""
    before, _, rest = text.partition(START)
    _, end, after = rest.partition(END)
    assert end, f"README has no {END}"
    return f"{before}{START}\n{table(dispatch.kernels())}\n{END}{after}"


if __name__ == "__main__":
    README.write_text(with_table(README.read_text(encoding="utf-8")), encoding="utf-8")
