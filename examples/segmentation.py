"""Tell the sky from the rest of a photograph: a U-Net of PyTorch, then the same on fastconv.

The network learns in PyTorch from the left of the photograph, where a rule about colours says what
is sky; `fastconv.torch.optimize` then returns the same network with its layers fused and packed,
which is the whole change. Printed are how well the right agrees with the rule, by both, and how far
apart both are; the picture shows the photograph, the rule and what the network finds.

    pip install -e '.[examples]'
    python examples/segmentation.py [--steps 90] [--out segmentation.png] [--report]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from sklearn.datasets import load_sample_image
from torch import Tensor, nn

import fastconv.torch

#: The column where what is learned from ends, and the row of the horizon.
LEARNED, HORIZON = 224, 104


def double(before: int, after: int) -> nn.Sequential:
    """Return two convolutions, each with a norm and an activation."""
    layers: list[nn.Module] = []
    for channels in (before, after):
        layers += [
            nn.Conv2d(channels, after, 3, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """A U-Net (Ronneberger et al. 2015) of four levels: (N, 3, H, W) to (N, 1, H, W)."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        widths = [width << level for level in range(4)]
        self.downs = nn.ModuleList(map(double, [3, *widths[:-1]], widths))
        self.pool = nn.MaxPool2d(2)
        pairs = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.ups = nn.ModuleList(nn.ConvTranspose2d(deep, flat, 2, 2) for deep, flat in pairs)
        self.joins = nn.ModuleList(double(2 * flat, flat) for _, flat in pairs)
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return how much speaks for sky, at each pixel."""
        skipped = []
        for level, down in enumerate(self.downs):
            x = down(x if level == 0 else self.pool(x))
            skipped.append(x)
        for up, join, skip in zip(self.ups, self.joins, skipped[-2::-1], strict=True):
            x = join(torch.cat([skip, up(x)], 1))
        return self.head(x)


def photograph() -> tuple[np.ndarray, np.ndarray]:
    """Return a photograph, (H, W, 3) from 0 to 1, and which of its pixels are sky by the rule.

    Sky is bright, no redder than blue, above the horizon, and hangs together.
    """
    picture = load_sample_image("china.jpg")[:416].astype(np.float32) / 255
    picture = picture.reshape(208, 2, 320, 2, 3).mean((1, 3))  # 208 and 320 are multiples of 8
    red, _, blue = picture.transpose(2, 0, 1)
    bright = ndimage.binary_opening((blue > 0.8) & (blue > red - 0.02))
    bright[HORIZON:] = False
    regions, _ = ndimage.label(bright)
    return picture, regions == regions[10, 150]


def train(network: nn.Module, x: Tensor, sky: Tensor, steps: int) -> None:
    """Let a network learn from random windows of the left of a photograph."""
    random = np.random.default_rng(0)
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    size, batch = 96, 4
    for step in range(steps):
        rows = random.integers(0, x.shape[2] - size + 1, batch)
        columns = random.integers(0, LEARNED - size + 1, batch)
        windows = [(slice(r, r + size), slice(c, c + size))
                   for r, c in zip(rows.tolist(), columns.tolist(), strict=True)]  # fmt: skip
        seen = torch.stack([x[0, :, rows, columns] for rows, columns in windows])
        wanted = torch.stack([sky[rows, columns] for rows, columns in windows])
        for group in optimizer.param_groups:
            group["lr"] = 5e-3 * (1 - step / steps)
        optimizer.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(network(seen)[:, 0], wanted)
        loss.backward()
        optimizer.step()
        if step % 10 == 9:
            print(
                f"step {step + 1} of {steps}, loss {loss.item():.3f}", file=sys.stderr, flush=True
            )


def agreement(found: np.ndarray, sky: np.ndarray) -> float:
    """Return the share of pixels right of the learned ones that two masks have in common."""
    found, sky = found[:, LEARNED:], sky[:, LEARNED:]
    return float((found & sky).sum() / (found | sky).sum())


def draw(path: Path, picture: np.ndarray, sky: np.ndarray, found: np.ndarray) -> None:
    """Write a picture of the photograph, the rule's sky and the network's."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 3.5), layout="constrained")
    titles = ("photograph", "rule; learned from the left of the line", "U-Net on fastconv")
    masks = (np.zeros_like(sky), sky, found)
    for axes, title, mask in zip(figure.subplots(1, 3), titles, masks, strict=True):
        axes.imshow(np.where(mask[..., None], 0.4 * picture + np.array([0.59, 0, 0]), picture))
        axes.set(title=title, xticks=[], yticks=[])
        if mask is sky:
            axes.axvline(LEARNED, color="white")
    figure.savefig(path, dpi=110)


def main(argv: Sequence[str] | None = None) -> int:
    """Train, optimise, and compare."""
    parser = argparse.ArgumentParser(description="Segment a photograph with a U-Net.")
    parser.add_argument("--steps", type=int, default=90, help="of training (default: %(default)s)")
    parser.add_argument("--out", type=Path, metavar="PNG", help="write a picture")
    parser.add_argument("--report", action="store_true", help="tell what computes each layer")
    arguments = parser.parse_args(argv)
    picture, sky = photograph()
    x = torch.from_numpy(picture.transpose(2, 0, 1).copy())[None]
    torch.manual_seed(0)
    network = UNet()
    train(network, x, torch.from_numpy(sky).float(), arguments.steps)
    network.eval()
    fast, report = fastconv.torch.optimize(network, report=True)
    with torch.inference_mode():
        theirs, ours = network(x)[0, 0].numpy(), fast(x)[0, 0].numpy()
    print(f"sky right of the learned: PyTorch {agreement(theirs > 0, sky):.3f}, "
          f"fastconv {agreement(ours > 0, sky):.3f} in common with the rule")  # fmt: skip
    print(f"largest difference: {np.abs(ours - theirs).max() / np.abs(theirs).max():.1e} of the "
          "largest value")  # fmt: skip
    if arguments.report:
        print(report)
    if arguments.out:
        draw(arguments.out, picture, sky, ours > 0)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
