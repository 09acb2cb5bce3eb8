"""Every registered kernel has a case in every group of tests that is generated from the registry.

A group is a test whose parameters hold kernels. It is meant for all kernels of the operators and
devices that it holds: one for which no problem of the group fits would be tested less than others,
and nobody would see it. The modules are found by their text, so a new group needs no entry here.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fastconv import dispatch
from fastconv.contract.problem_line import parse_line
from fastconv.contract.spec import KernelSpec

TESTS = Path(__file__).resolve().parents[1]
#: Groups that are meant for some kernels only: those that do not transform the arithmetic, or those
#: that run outer products in two passes.
EXACT = {spec.name for spec in dispatch.kernels() if spec.exact}
ONLY = {
    "cpu/test_number_range.py": {
        "test_exact_precision_loses_nothing_below_the_normal_numbers": EXACT
    },
    "cpu/test_far_taps.py": {"test_cuda_kernels_refuse_positions_beyond_32_bits": EXACT},
    "cpu/test_nested_calls.py": {"test_separable_filters": {"cpu.fast_fir", "cpu.fft"}},
}
#: Modules whose groups need what may be missing.
NEEDS = {"cuda": "numba_cuda"}


def has_groups(path: Path) -> bool:
    """Whether a test of a module is generated with a kernel as a parameter."""
    functions = (
        node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)
    )
    return any(
        isinstance(argument.annotation, ast.Name)
        and argument.annotation.id == KernelSpec.__name__
        and argument.arg in generated(function)
        for function in functions
        for argument in function.args.args
    )


def generated(function: ast.FunctionDef) -> set[str]:
    """The parameters that the decorators of a test name."""
    return {
        node.value
        for decorator in function.decorator_list
        if isinstance(decorator, ast.Call) and decorator.args
        for node in ast.walk(decorator.args[0])
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


MODULES = sorted(
    str(path.relative_to(TESTS)) for path in TESTS.glob("*/test_*.py") if has_groups(path)
)


def module_of(path: str) -> ModuleType:
    """A test's module, as pytest imported it where it did."""
    name = ".".join(Path(TESTS.name, path).with_suffix("").parts)
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, TESTS / path)
        assert spec is not None and spec.loader is not None
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


@dataclass(frozen=True)
class Group:
    """The kernels of a generated test, and the element types of its problems (none: any)."""

    specs: list[KernelSpec]
    dtypes: set[str]

    @classmethod
    def of(cls, parameters: list[Any]) -> Group:
        """What the parameters of a test hold."""
        values = [
            value
            for case in parameters
            for value in getattr(case, "values", case if isinstance(case, tuple) else (case,))
        ]
        dtypes = {getattr(value, "dtype", None) for value in values}
        return cls([value for value in values if isinstance(value, KernelSpec)],
                   {dtype for dtype in dtypes if isinstance(dtype, str)})  # fmt: skip

    def left_out(self) -> set[str]:
        """The registered kernels that the group is meant for and does not hold.

        It is meant for those of its operators and devices that take some element type of it.
        """
        meant = {(spec.op, spec.device) for spec in self.specs}
        every = {
            spec.name
            for spec in dispatch.kernels()
            if (spec.op, spec.device) in meant
            and (not self.dtypes or not self.dtypes.isdisjoint(spec.tolerance))
        }
        return every - {spec.name for spec in self.specs}


def groups(module: ModuleType) -> dict[str, Group]:
    """The groups of a module, by the test's name."""
    found: dict[str, Group] = {}
    for name, test in vars(module).items():
        if name.startswith("test_"):
            for mark in getattr(test, "pytestmark", ()):
                if mark.name == "parametrize" and (group := Group.of(mark.args[1])).specs:
                    found[name] = group
    return found


@pytest.mark.parametrize("path", MODULES)
def test_every_kernel_has_a_case_in_every_group(path: str) -> None:
    if package := NEEDS.get(Path(path).parent.name):
        pytest.importorskip(package)
    found, only = groups(module_of(path)), ONLY.get(path, {})
    assert found and set(only) <= set(found)
    missing = {name: group.left_out() for name, group in found.items()}
    missing = {name: names & only.get(name, names) for name, names in missing.items()}
    assert {name: names for name, names in missing.items() if names} == {}


def test_a_kernel_without_a_case_is_found() -> None:
    specs = dispatch.kernels(op="conv", device="cpu")
    assert Group.of(specs).left_out() == set()
    assert Group.of(specs[1:]).left_out() == {specs[0].name}
    assert Group.of([pytest.param(specs[0], 3), (specs[1],), specs[2]]).specs == specs[:3]
    assert len(MODULES) >= 12


def test_a_kernel_needs_no_case_of_an_element_type_that_it_does_not_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, *others = dispatch.kernels(op="conv", device="cpu")
    narrow = replace(first, tolerance={"float32": first.tolerance["float32"]})
    monkeypatch.setattr(dispatch, "kernels", lambda *_: [narrow, *others])
    single = parse_line("ic3ih9oc3kh3")[0]
    half = single.with_(dtype="float16")
    assert Group.of([(spec, half) for spec in others]).left_out() == set()
    assert Group.of([(others[0], half), (others[0], single)]).left_out() >= {narrow.name}
