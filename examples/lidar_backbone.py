"""Run a detector's backbone on a LiDAR scan: SECOND's sparse layers on fastconv.

The network is written for spconv and PyTorch; what differs are the two imports of spconv below. A
scan of a street is simulated where no file is named. Weights are random, so the features tell how
sites spread and where things are, not what they are. Printed are the sites and features of each
stage, from the voxels to the map from above that a detector's head reads; a picture shows them.

    pip install -e '.[examples]'
    python examples/lidar_backbone.py [SCAN.bin | .npy | .ply | .las ...] [--out lidar.png]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import fastconv.spconv.pytorch as spconv
from fastconv.scans.lidar import sweep
from fastconv.scans.read import read_scan
from fastconv.spconv.pytorch.utils import PointToVoxel

#: Metres of a voxel, and of the box that is looked at: low x, y, z, high x, y, z.
VOXEL = [0.1, 0.1, 0.15]
BOX = [-51.2, -51.2, -1.0, 51.2, 51.2, 5.0]


def submanifold(before: int, after: int, stage: int) -> spconv.SparseSequential:
    """Return a layer whose outputs are at the sites of its inputs."""
    return spconv.SparseSequential(
        spconv.SubMConv3d(before, after, 3, padding=1, bias=False, indice_key=f"subm{stage}"),
        nn.BatchNorm1d(after, eps=1e-3),
        nn.ReLU(),
    )


def halving(
    before: int, after: int, kernel: int | tuple[int, ...] = 3, stride: int | tuple[int, ...] = 2,
    padding: int | tuple[int, ...] = 1,
) -> spconv.SparseSequential:  # fmt: skip
    """Return a layer that halves the grid, with outputs wherever its kernel meets a site."""
    return spconv.SparseSequential(
        spconv.SparseConv3d(before, after, kernel, stride, padding, bias=False),
        nn.BatchNorm1d(after, eps=1e-3),
        nn.ReLU(),
    )


class Backbone(nn.Module):
    """Middle layers as in SECOND (Yan et al. 2018): from 4 channels a voxel to 128."""

    def __init__(self) -> None:
        super().__init__()
        layers = [
            [submanifold(4, 16, 1), submanifold(16, 16, 1)],
            [halving(16, 32), submanifold(32, 32, 2), submanifold(32, 32, 2)],
            [halving(32, 64), submanifold(64, 64, 3), submanifold(64, 64, 3)],
            [halving(64, 64, padding=(0, 1, 1)), submanifold(64, 64, 4), submanifold(64, 64, 4)],
            [halving(64, 128, (3, 1, 1), (2, 1, 1), 0)],
        ]
        self.stages = nn.ModuleList(spconv.SparseSequential(*stage) for stage in layers)

    def forward(self, x: spconv.SparseConvTensor) -> tuple[list[spconv.SparseConvTensor], Tensor]:
        """Return what each stage gives, and the map from above, (batch, channels, y, x)."""
        made = []
        for stage in self.stages:
            x = stage(x)
            made.append(x)
        dense = x.dense()
        batch, channels, height, *plane = dense.shape
        return made, dense.reshape(batch, channels * height, *plane)


def to_voxels(points: np.ndarray) -> spconv.SparseConvTensor:
    """Return the means of the points (x, y, z, intensity) in each voxel of the box."""
    make = PointToVoxel(VOXEL, BOX, num_point_features=4, max_num_voxels=150_000,
                        max_num_points_per_voxel=5)  # fmt: skip
    voxels, sites, counts = make(torch.from_numpy(points))
    means = voxels.sum(1) / counts[:, None]
    means /= torch.tensor([51.2, 51.2, 5.0, 1.0])
    sites = torch.cat([torch.zeros_like(sites[:, :1]), sites], 1)  # of the only scan of the batch
    depth, height, width = make.grid_size
    return spconv.SparseConvTensor(means, sites, [depth + 1, height, width], batch_size=1)


def calibrated(voxels: spconv.SparseConvTensor, seed: int = 0) -> Backbone:
    """Return a backbone of random weights whose norms know the statistics of a scan."""
    torch.manual_seed(seed)
    backbone = Backbone()
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.momentum = None  # the statistics of what it has seen, here one scan
    with torch.no_grad():
        backbone.train()(voxels)
    return backbone.eval()


def from_above(x: spconv.SparseConvTensor) -> np.ndarray:
    """Return the length of the longest feature vector above each place, 0 where there is none."""
    plane = np.zeros(x.spatial_shape[1:], np.float32)
    _, _, y, across = x.indices.numpy().T
    np.maximum.at(plane, (y, across), x.features.norm(dim=1).numpy())
    return plane


def draw(path: Path, stages: list[spconv.SparseConvTensor]) -> None:
    """Write a picture of what stages give, from above."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 3.4), layout="constrained")
    for number, (axes, x) in enumerate(zip(figure.subplots(1, len(stages)), stages, strict=True)):
        plane = from_above(x)
        axes.imshow(np.sqrt(plane), "inferno", origin="lower", extent=(-51.2, 51.2, -51.2, 51.2))
        axes.set_title(f"stage {number + 1}: {x.features.shape[1]} channels")
        axes.set_xlabel("m")
    figure.savefig(path, dpi=110)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the backbone on a scan and print what each stage gives."""
    parser = argparse.ArgumentParser(description="Run SECOND's sparse layers on a LiDAR scan.")
    parser.add_argument("scan", nargs="?", type=Path, help="a file; else a street is simulated")
    parser.add_argument("--out", type=Path, metavar="PNG", help="draw the features from above")
    arguments = parser.parse_args(argv)
    points = read_scan(arguments.scan).points if arguments.scan else sweep()
    points = points - np.array([0, 0, np.percentile(points[:, 2], 1), 0], np.float32)
    voxels = to_voxels(points)
    print(f"{len(points)} points, {len(voxels.features)} voxels")
    with torch.no_grad():
        stages, above = calibrated(voxels)(voxels)
    for number, x in enumerate(stages, 1):
        grid = " x ".join(map(str, x.spatial_shape))
        strength = float(x.features.norm(dim=1).mean())
        rows, channels = x.features.shape
        print(f"stage {number}: {rows} sites of {grid}, {channels} channels, mean {strength:.4f}")
    print(f"map from above: {tuple(above.shape)}, {float((above != 0).float().mean()):.1%} filled")
    if arguments.out:
        draw(arguments.out, stages)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
