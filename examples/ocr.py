"""Read the text in pictures: PP-OCR's three ONNX models on fastconv.

The package rapidocr-onnxruntime finds lines of text with one model, turns them upright with a
second and reads them with a third. Its code stays as it is; the sessions that it makes are
fastconv's in the place of ONNX Runtime's. Three pictures are drawn here; others can be named:

    pip install -e '.[examples]'
    python examples/ocr.py [PICTURE ...] [--runtime onnxruntime] [--out FOLDER]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from rapidocr_onnxruntime import RapidOCR
from rapidocr_onnxruntime.utils import infer_engine

import fastconv.onnx


class Line(NamedTuple):
    """A line of text that was read: its four corners, the text, and how sure the model is."""

    corners: list[list[float]]
    text: str
    score: float


def make_reader(runtime: str = "fastconv") -> RapidOCR:
    """Return rapidocr's reader, on the sessions of fastconv or of ONNX Runtime."""
    if runtime != "fastconv":
        return RapidOCR()
    with patch.object(infer_engine, "InferenceSession", fastconv.onnx.InferenceSession):
        return RapidOCR()


def read(reader: RapidOCR, picture: Image.Image) -> list[Line]:
    """Return the lines of text in a picture, from top to bottom."""
    found, _ = reader(np.asarray(picture.convert("RGB"))[..., ::-1])  # it wants blue first
    return [Line(*line) for line in found or ()]


#: What is written into each picture.
TEXTS = {
    "receipt": ("Corner Cafe", "2 espresso 5.60", "1 croissant 2.90", "Total 8.50"),
    "sign": ("PLATFORM 12", "Zurich 09:41"),
    "upside_down": ("Convolution", "is a sum of products"),
}


def draw_pictures() -> dict[str, Image.Image]:
    """Draw a receipt, a tilted sign, light on dark, and a grainy note that lies upside down."""
    receipt = _written(TEXTS["receipt"], (560, 360), ink="black", paper="white")
    sign = _written(TEXTS["sign"], (480, 220), ink="white", paper="midnightblue")
    sign = sign.rotate(6, Image.Resampling.BICUBIC, expand=True, fillcolor="dimgray")
    note = _written(TEXTS["upside_down"], (620, 240), ink="darkred", paper="lightyellow")
    grain = np.random.default_rng(0).normal(0, 12, (note.height, note.width, 3))
    note = Image.fromarray(np.clip(np.asarray(note) + grain, 0, 255).astype(np.uint8))
    pictures = (receipt, sign, note.rotate(180))
    return dict(zip(TEXTS, pictures, strict=True))


def _written(lines: Sequence[str], size: tuple[int, int], ink: str, paper: str) -> Image.Image:
    """Return a picture with lines of text, one below the other."""
    picture = Image.new("RGB", size, paper)
    canvas, font = ImageDraw.Draw(picture), ImageFont.load_default(44)
    for number, line in enumerate(lines):
        canvas.text((40, 30 + 78 * number), line, ink, font)
    return picture


def marked(picture: Image.Image, lines: Iterable[Line]) -> Image.Image:
    """Return a picture with a frame around each line that was read."""
    made = picture.convert("RGB")
    canvas = ImageDraw.Draw(made)
    for line in lines:
        canvas.polygon([tuple(corner) for corner in line.corners], outline="red", width=3)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Read pictures and print their text."""
    parser = argparse.ArgumentParser(description="Read the text in pictures with PP-OCR.")
    parser.add_argument(
        "pictures", nargs="*", type=Path, help="three are drawn where none is named"
    )
    parser.add_argument("--runtime", choices=("fastconv", "onnxruntime"), default="fastconv")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write pictures with frames")
    arguments = parser.parse_args(argv)
    pictures = {path.stem: Image.open(path) for path in arguments.pictures} or draw_pictures()
    reader = make_reader(arguments.runtime)
    for name, picture in pictures.items():
        lines = read(reader, picture)
        print(f"{name}: {len(lines)} lines")
        for line in lines:
            print(f"  {line.score:.3f}  {line.text}")
        if arguments.out:
            arguments.out.mkdir(parents=True, exist_ok=True)
            marked(picture, lines).save(arguments.out / f"{name}.png")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
