"""The CPU's identity: what tells one kind of core from another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fastconv import tuning
from fastconv.contract import cpu_model
from fastconv.contract.cpu import cpu_info

X86 = """processor	: 0
vendor_id	: AuthenticAMD
cpu family	: 25
model		: 17
model name	: AMD EPYC
stepping	: 1
flags		: fpu vme

processor	: 1
vendor_id	: AuthenticAMD
cpu family	: 26
"""
ARM = """processor	: 0
BogoMIPS	: 243.75
Features	: fp asimd evtstrm
CPU implementer	: 0x41
CPU architecture: 8
CPU variant	: 0x1
CPU part	: 0xd40
CPU revision	: 1
"""


@pytest.mark.parametrize(
    ("text", "model"), [(X86, "AuthenticAMD 25.17.1"), (ARM, "0x41 0xd40.0x1.1")]
)
def test_model_is_that_of_the_first_processor(text: str, model: str) -> None:
    assert cpu_model._model(cpu_model._read(text)) == model


def test_a_system_that_tells_nothing_has_some_name() -> None:
    assert cpu_model._model(cpu_model._read(""))


@pytest.mark.parametrize("field", ["model", "isa", "l1", "l2", "l3"])
def test_choices_of_one_kind_of_core_are_not_those_of_another(
    field: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A marketing name may stand for both."""
    monkeypatch.setattr(tuning, "cache_dir", lambda: tmp_path)
    places = []
    for value in ("1", "2") if field in ("model", "isa") else (1, 2):
        info = replace(cpu_info(), **{field: value})  # type: ignore[arg-type]
        monkeypatch.setattr(tuning, "cpu_info", lambda info=info: info)
        monkeypatch.setattr(tuning, "_memory", None)
        places.append(tuning.memory().path)
    assert places[0] != places[1]
