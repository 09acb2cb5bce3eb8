"""The problems that operators without a weight are tested on, a list of lines for each.

Lines are read in float32 and channels first; tests bring them into the other element types and
memory orders. Sizes are awkward: no multiple of a vector, narrower than one, wider than several.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from fastconv.contract.array_problem import ARRAY_OPS, ArrayProblem, Operand
from fastconv.contract.problem import INTEGERS
from fastconv.contract.problem_line import parse_any_line
from helpers import ALL_DTYPES, DTYPES, in_layout

__all__ = ["LINES", "PLANAR", "ROUNDED", "SPECIAL", "draw", "problems"]

_POOLS = [
    "mb2ic3ih9iw11kh3",
    "ic5ih13iw37kh3sh2ph1",
    "ic5ih13iw37oh7ow19kh3sh2ph1",
    "ic2ih14iw70kh2sh2",
    "ic2ih15iw33oh8ow17kh2sh2",
    "mb2ic17ih7iw7kh7",
    "ic3ih6iw50kh1kw5sh1sw3ph0pw2",
    "ic4ih8iw5kh3kw1sh2sw1",
    "ic1ih1iw1kh1",
    "ic7iw41kw3sw1pw1",
    "ic2iw43kw8sw1",
    "mb3ic2iw200kw4sw4",
    "ic3iw9kw9sw2pw4",
    "ic2id5ih6iw18kd3kh2kw3sd2sh2sw1pd1ph1pw1",
    "ic33id3ih4iw5kd2kh2kw2sd1sh1sw1",
    "ic3ih9iw40kh3sh17ph1",
    "ic2ih30iw50kh2sh23",
    "ic2ih6iw7kh2sh2147483648",
]

_ADAPTIVE = [
    "mb2ic3ih7iw7oh1", "ic40ih14iw14oh7", "ic5ih13iw37oh6ow5", "ic3ih4iw5oh9ow1", "ic33iw50ow7",
    "ic2id4ih6iw20od2oh3ow10", "ic3id5ih3iw18od2oh3ow4", "ic2iw300ow1", "ic1ih1iw1oh1",
]  # fmt: skip
_UNPOOLS = [
    "mb2ic3ih5iw8kh2sh2oh10ow16", "ic20ih5iw8kh2sh2oh11ow16", "ic5iw30kw3sw2ow61",
    "ic3id3ih4iw5kd2sd2od6oh8ow10", "ic1ih1iw1kh3oh3",
]  # fmt: skip
_PLACED = ["mb2ic3ih5iw8oh10ow16", "ic20ih5iw8oh11ow17", "ic5iw30ow59", "ic3id3ih4iw5od5oh6ow7"]
_DEFORMED = [
    "mb2ic3oc5ih9iw11kh3ph1",
    "--mask=1 mb2ic17oc33ih7kh3sh2ph1",
    "--mask=1 --bias=1 ic16oc40ih6iw19kh3ph1og4",
    "--bias=1 --activation=relu ic6oc4ih8iw5kh2kw3sh1sw2ph0pw1g2og3",
    "--mask=1 ic12oc6ih10kh3ph2dh1g2og4",
    "ic20oc24ih13iw12kh3ph1g4og2",
    "--mask=1 --bias=1 ic70oc37ih5iw9kh1",
    "ic1oc1ih1kh1",
    "ic8oc8ih4iw30kh1kw5ph0pw2og8",
    "--mask=1 ic6oc18ih3iw40kh3ph1g6",
    "--mask=1 ic130oc20ih6iw5kh2",
]
_WITH_SLOPES = [
    "--activation=prelu ic5oc35ih6iw7kh3ph1",
    "--mask=1 --bias=1 --activation=prelu ic6oc18ih5kh2g2",
]
_WINDOWS = [
    "mb2ic3ih9iw11kh3ph1",
    "ic5ih13iw37kh3sh2ph1",
    "ic2ih15iw33kh7sh2ph3",
    "ic3ih9iw70kh3ph2dh1",
    "ic17ih7iw7kh3ph1",
    "ic4ih8iw5kh3kw1sh2sw1pw1",
    "ic7iw41kw3pw1",
    "mb3ic2iw200kw4sw3pw2",
    "ic2id5ih6iw18kd3kh2kw3sd2sh2sw1pd1ph1pw1",
    "ic1iw37kw3sw12pw2",
    "ic3iw9kw3pw5",
    "ic2iw50kw5sw6pw3dw3",
    "ic2iw30kw2sw4pw1dw1",
]
_UNPADDED = [
    "ic3ih8iw12kh4sh4",
    "ic1ih1iw1kh1",
    "ic6ih9iw40kh3",
    "ic3ih9iw40kh2sh3",
    "ic2iw64kw16sw16",
    "mb2ic20ih7iw7kh1",
    "ic33id3ih4iw5kd2kh2kw2",
    "ic3ih9iw9kh9",
    "ic2ih6iw40kh2sh2dh2",
]
_CHANNELS = [
    "mb2ic33ih5iw7", "ic64ih9iw13", "mb3ic17iw50", "mb5ic70iw1", "ic5ih3iw3", "mb2ic16id3ih5iw6",
    "mb4ic1iw20",
]  # fmt: skip
_SOFTMAX = [
    "mb2ic21ih9iw35", "mb37ic197iw1", "ic1000iw1", "mb3ic5iw700", "mb2ic130iw3", "mb1ic1ih2iw2",
    "mb2ic9id3ih4iw5", "mb7ic3iw1", "ic2100iw3",
]  # fmt: skip
_RESIZED = [
    "mb2ic5ih9iw11oh18ow22",
    "--mode=bilinear mb2ic5ih9iw11oh18ow22",
    "--mode=bilinear ic3ih20iw37oh11ow17",
    "--mode=bilinear --align_corners=1 ic6ih7iw40oh15ow90",
    "--mode=bilinear --scale=1.3x0.7 ic33ih10iw30",
    "--mode=bilinear mb2ic17ih12iw13oh12ow31",
    "--mode=bilinear ic2ih5iw1100oh3ow800",
    "--mode=bilinear ic3ih30iw500oh4ow9",
    "--mode=bilinear ic65ih2iw1oh6ow5",
    "--mode=bicubic ic5ih8iw9oh29ow33",
    "--mode=bicubic --align_corners=1 mb2ic3ih14iw31oh9ow20",
    "--mode=bicubic ic20ih10iw50oh7ow11",
    "--mode=bicubic ic1ih1iw1oh1ow1",
    "--mode=nearest-exact ic5ih14iw23oh31ow11",
    "ic18ih14iw23oh9ow60",
    "ic4ih7iw300oh3ow10",
    "--mode=linear mb2ic3iw50ow171",
    "--mode=linear ic4iw1300ow600",
    "--mode=nearest-exact ic2iw40ow100",
    "--mode=trilinear mb2ic3id4ih5iw9od7oh9ow20",
    "--mode=trilinear --align_corners=1 ic34id5ih6iw7od3oh12ow5",
    "ic5id3ih4iw5od6oh3ow9",
    "ic1ih1iw1oh1",
]

_GRADIENTS = [line.replace("--bias=1 ", "").replace("--activation=relu ", "") for line in _DEFORMED]

#: By operator, lines without the operator's flag.
LINES: dict[str, list[str]] = {
    "max_pool": [
        *_POOLS, "ic3ih13iw29kh3sh1ph1dh1", "ic3ih20iw29kh2kw3sh2sw3dh2dw3", "ic2iw40kw3sw2dw4pw1",
        "ic2iw9000kw3sw2", "ic19ih12iw40kh3sh5", "ic5ih18iw17kh13sh1ph6", "ic3ih20iw90kh4sh4",
        *(f"--return_indices=1 {line}" for line in (*_POOLS, "ic3ih20iw29kh2kw3sh2sw3dh2dw3")),
    ],
    "avg_pool": [
        *_POOLS, "ic2iw9000kw3sw2", "ic19ih12iw40kh3sh5", "ic5ih18iw17kh13sh1ph6",
        *(f"--count_include_pad=0 {line}" for line in _POOLS),
        "--divisor_override=7 mb2ic37ih13iw37oh7ow19kh3sh2ph1",
    ],
    "lp_pool": [
        line for line in _POOLS if not re.search(r"p[dhw][1-9]", line)
    ] + ["--norm_type=1.0 ic5ih9iw20kh3sh2", "--norm_type=3.0 ic33ih9iw20kh3sh2"],
    "adaptive_max_pool": [
        *_ADAPTIVE, *(f"--return_indices=1 {line}" for line in _ADAPTIVE),
    ],
    "adaptive_avg_pool": _ADAPTIVE,
    "adaptive_avg_pool_grad": _ADAPTIVE,
    "avg_pool_grad": [
        *_POOLS, *(f"--count_include_pad=0 {line}" for line in _POOLS[::3]),
        "--divisor_override=7 mb2ic37ih13iw37oh7ow19kh3sh2ph1",
    ],
    "max_unpool": _UNPOOLS,
    "max_pool_grad": _PLACED,
    "max_unpool_grad": _PLACED,
    "deform_conv": [*_DEFORMED, *_WITH_SLOPES],
    "interleave": [
        "mb2ic12ih5iw7sh2", "ic18ih4iw37sh3", "ic24ih3iw19sh2sw4", "ic25ih3iw5sh5sw1",
        "ic5ih4iw3sh1", "mb2ic16iw40sw8", "ic7iw33sw7", "ic16id2ih3iw17sd2sh2sw2",
        "ic12id2ih3iw5sd1sh2sw3", "ic400ih7iw7sh2",
    ],
    "pixel_shuffle": [
        "mb2ic12ih5iw7r2", "ic18ih4iw37r3", "ic32ih3iw19r4", "ic25ih3iw5r5", "ic1ih5iw4r1",
        "mb3ic8ih1iw1r2", "ic72ih2iw3r6", "ic162ih6iw18r9", "ic200ih3iw33r10", "ic9ih6iw40r3",
    ],
    "pixel_unshuffle": [
        "mb2ic3ih10iw14r2", "ic2ih12iw111r3", "ic2ih12iw76r4", "ic1ih15iw25r5", "ic5ih3iw4r1",
        "ic2ih12iw18r6", "ic40ih4iw6r2", "ic33ih9iw18r9", "ic3ih20iw40r10", "ic3ih4iw2r2",
    ],
    "channel_shuffle": [
        "mb2ic12ih5iw7g3", "ic116ih7iw7g2", "ic240ih4iw5g3", "ic24iw33g8", "ic30id2ih3iw5g5",
        "ic7ih3iw4g7", "ic7ih3iw4g1", "ic33ih1iw1g11", "mb2ic544ih3iw3g4", "ic1000ih2iw1g25",
    ],
    "linear": [
        "ic37iw3oc19", "ic1000iw1oc100", "ic9001iw2oc37", "ic16iw4oc4", "--bias=1 ic129iw5oc33",
        "--bias=1 ic70iw8oc50", "ic1iw1oc1", "--bias=1 ic33iw1oc17", "ic513iw7oc6", "ic64iw6oc130",
    ],
    "unfold": [*_WINDOWS, *_UNPADDED],
    "fold": [*_WINDOWS, *_UNPADDED, "ic2iw9001kw3pw1", "iw12997ic1kw5sw3pw2", "ic1iw13001kw7sw11"],
    "pad": [
        "mb2ic3ih9iw11ph1", "--mode=reflect mb2ic3ih9iw11ph2pw3", "--mode=symmetric ic5ih13iw37ph3",
        "--mode=replicate ic17ih7iw7ph1pw9", "--mode=circular ic3ih8iw90ph2pw5",
        "--mode=reflect ic3ih3iw2ph7pw5", "--mode=symmetric ic2ih2iw1ph5pw4",
        "--mode=circular ic2ih3iw2ph8pw5", "--mode=reflect ic1ih1iw1ph2",
        "--value=-2.0 ic4ih6iw20ph2pw1oh11ow40", "--mode=reflect ic4ih6iw40ph-3pw1oh5ow39",
        "--mode=circular ic4ih9iw40ph-5pw-30oh7ow33", "--value=3.0 ic20ih4iw5ph-9pw2oh3",
        "--mode=reflect ic33iw50pw4", "--mode=symmetric ic2iw30001pw70",
        "--mode=reflect mb2ic18id3ih5iw6pd1ph2pw1", "--value=0.5 ic3id2ih4iw17pd1",
        "ic1ih1iw1ph0", "--mode=replicate ic7ih4iw33ph0pw-33oh4ow4",
        "--mode=reflect mb2ic9ih70iw90ph3pw2oh76ow6", "--mode=circular ic5ih40iw50ph2pw-46oh44ow8",
        "--value=1.5 ic3id4ih30iw40pd1ph1pw-39od6oh32ow4",
        # Integers: rows of every rest modulo four bytes, pixels, a strip, and of 16 bits.
        *(f"--dt=u8 --mode=reflect mb2ic3ih5iw{30 + n}ph2pw{n}" for n in range(1, 8)),
        "--dt=u8 --value=200.0 ic7ih4iw61ph1pw3",
        "--dt=u8 --mode=circular ic5ih40iw50ph2pw-46oh44ow7",
        "--dt=u8 --value=3.0 mb2ic19id3ih5iw6pd1ph2pw1", "--dt=u8 --mode=symmetric ic1iw3001pw70",
        "--dt=u16 --mode=replicate ic3ih9iw45ph1pw2", "--dt=s16 --value=-300.0 ic2ih9iw35ph3",
    ],
    "batch_norm_grad": [*_CHANNELS, "--weight=0 mb2ic33ih5iw7", "--eps=0.25 ic9iw400"],
    "group_norm_grad": [
        "mb2ic32ih5iw7g8", "ic64ih9iw13g4", "mb3ic18iw50g18", "mb5ic70iw1g7", "ic6ih3iw3g1",
        "mb2ic16id3ih5iw6g2", "--weight=0 ic8ih40iw41g2",
    ],
    "layer_norm_grad": ["ic197iw96", "ic1iw1000", "ic33iw7", "--weight=0 --eps=0.25 ic6iw31"],
    "batch_norm": [
        *_CHANNELS, *(f"--training=1 {line}" for line in _CHANNELS),
        "--weight=0 mb2ic33ih5iw7", "--bias=0 mb2ic33ih5iw7", "--eps=0.25 --training=1 ic9iw40",
        "--training=1 mb3ic20ih40iw41", "ic2ih150iw151",
    ],
    "group_norm": [
        "mb2ic32ih5iw7g8", "ic64ih9iw13g4", "mb3ic18iw50g18", "mb5ic70iw1g7", "ic6ih3iw3g1",
        "mb2ic16id3ih5iw6g2", "--weight=0 --bias=0 mb2ic32ih5iw7g4", "--eps=0.25 ic8ih40iw41g2",
    ],
    "instance_norm": [
        "mb2ic33ih5iw7", "ic64ih9iw13", "mb3ic17iw50", "ic5ih3iw3", "mb2ic16id3ih5iw6",
        "mb4ic1iw20", "--weight=0 --bias=0 ic20ih40iw41",
    ],
    "layer_norm": [
        "ic197iw96", "ic1iw1000", "ic5iw2100", "ic33iw7", "ic1iw1", "--weight=0 ic6iw31",
        "--bias=0 --eps=0.25 ic6iw31", "ic300iw16",
    ],
    "prelu": [*_CHANNELS, "--shared=1 mb2ic33ih5iw7", "--shared=1 ic7iw1"],
    "local_response_norm": [
        "mb2ic33ih5iw7", "ic12ih9iw40", "--size=3 ic1iw50", "--size=4 --alpha=0.5 ic9iw33",
        "--size=30 --beta=1.5 --k=2.0 --alpha=1.0 mb2ic8iw20", "ic3id2ih3iw4",
    ],
    "softmax": _SOFTMAX,
    "log_softmax": _SOFTMAX,
    "interpolate": _RESIZED,
    "interpolate_grad": [*_RESIZED, "--mode=bilinear ic3ih1iw1oh70ow90", "ic18ih4iw1oh9ow150"],
    "deform_conv_grad_input": _GRADIENTS,
    "deform_conv_grad_offset": _GRADIENTS,
    "deform_conv_grad_weight": _GRADIENTS,
}  # fmt: skip

#: Operators whose results on small whole numbers are no whole numbers.
ROUNDED: set[str] = {
    "avg_pool", "lp_pool", "adaptive_avg_pool", "avg_pool_grad", "adaptive_avg_pool_grad",
    "batch_norm_grad", "group_norm_grad", "layer_norm_grad",
    "batch_norm", "group_norm", "instance_norm", "layer_norm", "softmax", "log_softmax",
    "local_response_norm", "interpolate", "interpolate_grad",
}  # fmt: skip


def _draw_places(of: Any, operand: Operand, rng: np.random.Generator) -> np.ndarray:
    """Places in a channel, each once where the last of several would count."""
    large = of.x_shape if of.op == "max_unpool_grad" else of.out_shape
    plane, count = math.prod(large[2:]), math.prod(operand.shape[2:])
    rows = [
        rng.choice(plane, count, replace=of.op != "max_unpool")
        for _ in range(math.prod(operand.shape[:2]))
    ]
    return in_layout(np.array(rows, np.int64).reshape(operand.shape), of.layout)


def _eighths(least: int, most: int, far: float = 1.0) -> Callable[..., np.ndarray]:
    """Multiples of 1/8: sums of their products with small whole numbers are exact."""

    def draw_eighths(of: Any, operand: Operand, rng: np.random.Generator) -> np.ndarray:
        values = rng.integers(8 * least, 8 * most + 1, operand.shape) / 8
        # Half of them whole, some far from zero.
        values = np.where(rng.random(operand.shape) < 0.5, np.floor(values), values)
        values = np.where(rng.random(operand.shape) < 0.02, far * values, values)
        return in_layout(values.astype(DTYPES[of.dtype]), of.layout)

    return draw_eighths


def _variances(of: Any, operand: Operand, rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(0.5, 2, operand.shape).astype(DTYPES[of.dtype])


#: Operators that PyTorch has for two spatial axes alone.
PLANAR = {"unfold", "fold"}

#: Operands that are no normal numbers, by operator and name: ``draw(problem, operand, rng)``.
SPECIAL: dict[tuple[str, str], Callable[[Any, Operand, np.random.Generator], np.ndarray]] = {
    ("max_unpool", "indices"): _draw_places,
    ("max_pool_grad", "indices"): _draw_places,
    ("max_unpool_grad", "indices"): _draw_places,
    ("batch_norm", "running_var"): _variances,
}
SPECIAL |= {
    (op, name): drawn
    for op in ("deform_conv", *(f"deform_conv_grad_{of}" for of in ("input", "offset", "weight")))
    for name, drawn in (("offset", _eighths(-3, 3, far=1000.0)), ("mask", _eighths(0, 1)))
}


def problems(op: str) -> list[Any]:
    """The problems of an operator, two more of which lie in other memory orders."""
    made: list[Any] = [parse_any_line(f"--op={op} {line}")[0] for line in LINES[op]]
    several = [
        of
        for of in made
        if len(of.x_shape) > 2 and min(of.x_shape[1], math.prod(of.x_shape[2:])) > 1
    ]  # of one position or channel the order is the same
    made += [of.with_(layout="channels_last") for of in several]
    return made + [of.with_(layout="strided") for of in several[::4]]


def draw(of: ArrayProblem, rng: np.random.Generator, integers: bool) -> tuple[np.ndarray, ...]:
    """The inputs of a problem: small whole numbers, or normal ones."""
    return tuple(_draw(of, operand, rng, integers) for operand in of.inputs)


def _draw(
    of: ArrayProblem, operand: Operand, rng: np.random.Generator, integers: bool
) -> np.ndarray:
    special = SPECIAL.get((of.op, operand.name))
    if special is not None:
        return special(of, operand, rng)
    shape = operand.shape
    whole = integers or of.dtype in INTEGERS
    values = rng.integers(-9, 10, shape) if whole else rng.standard_normal(shape)
    made = values.astype(operand.dtype or ALL_DTYPES[of.dtype])
    return in_layout(made, of.layout) if len(shape) > 2 else made


assert set(LINES) == set(ARRAY_OPS), "every operator has problems"
