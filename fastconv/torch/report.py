"""What `optimize` did with each layer of a model, and why it left the others."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Report"]


@dataclass
class Report:
    """What became of the layers of a model.

    Parameters
    ----------
    traced : bool
        Whether the model's calls were seen in order, so that layers could be fused across modules.
    note : str
        Why not, where they were not.
    swapped : dict of str to str
        What computes a module now, by its name: an object of fastconv's, with what it takes in.
    fused : dict of str to str
        Into which module another one went, by its name.
    left : dict of str to str
        Why a module was left to PyTorch, by its name.
    """

    traced: bool = False
    note: str = ""
    swapped: dict[str, str] = field(default_factory=dict)
    fused: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)

    def sort(self, names: list[str]) -> None:
        """Bring modules into an order, what is no module behind them."""
        place = {name: number for number, name in enumerate(names)}
        for each in (self.swapped, self.fused, self.left):
            entries = sorted(each.items(), key=lambda entry: place.get(entry[0], len(place)))
            each.clear()
            each.update(entries)

    def __str__(self) -> str:
        how = "traced by torch.fx" if self.traced else f"module by module: {self.note}"
        lines = [f"{len(self.swapped)} on fastconv, {len(self.left)} left to PyTorch; {how}"]
        lines += [f"  {name}: {what}" for name, what in self.swapped.items()]
        lines += [f"  {name}: in {where}" for name, where in self.fused.items()]
        lines += [f"  {name}: left, {why}" for name, why in self.left.items()]
        return "\n".join(lines)
