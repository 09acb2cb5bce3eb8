"""Results of a benchmark that nobody ran, for tests of what is made of them."""

from __future__ import annotations

from fastconv.bench.cases import Case, parse_case
from fastconv.bench.runner import Measurement, Result


def made_up() -> Result:
    """A report's measurements: one good row, one of float64, one whose results are wrong."""
    first = parse_case('ic64ih56oc64oh56kh3ph1n"first*3"')
    second = parse_case('--dt=f64 ic4ih8oc4kh3n"second"')
    third = parse_case('ic4ih8oc4kh3n"third"')

    def took(*milliseconds: float, kernel: str | None = None) -> Measurement:
        return Measurement([ms / 1e3 for ms in milliseconds], error=1e-7, kernel=kernel)

    rows: list[tuple[Case, dict[str, Measurement]]] = [
        (
            first,
            {
                "fastconv": took(1.0, 2.0, 9.0, kernel="cpu.im2col_gemm"),
                "fastconv_functional": took(4.0),
                "fastconv_best": took(1.9, kernel="cpu.winograd_f4"),
                "torch": took(3.0, 4.0, 5.0),
                "onnxruntime": took(8.0),
            },
        ),
        (
            second,
            {
                "fastconv": took(2.0, kernel="cpu.direct"),
                "fastconv_functional": took(2.0),
                "fastconv_best": took(1.0, kernel="cpu.im2col_gemm"),
                "torch": took(1.0),
                "onnxruntime": Measurement(reason="no float64"),
            },
        ),
        (
            third,
            {
                "fastconv": Measurement(reason="wrong result: planted", wrong=True, kernel="cpu.x"),
                "fastconv_functional": took(2.0),
                "torch": Measurement(reason="broken"),
                "onnxruntime": Measurement(reason="broken"),
            },
        ),
    ]
    machine = {"cpu": "made up", "isa": "avx2", "threads": 2}
    return Result(machine, {"float32": 231.211008e9, "float64": 100e9}, rows)
