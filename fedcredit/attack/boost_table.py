"""The table of `docs/attacks.md`, section "Boosted trees", measured again: ``python -m fedcredit.attack.boost_table``.

Names of groups of runs may be given: ``default``, ``beyond``, ``proposed``; all without any. A few minutes.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedcredit.attack.boost_attack import Found, PlayedBoost, attacks, play_boost, recover, together
from fedcredit.attack.rehearsal import Rehearsal
from fedcredit.attack.sample import Sample, write_sample
from fedcredit.errors import BoundError

__all__ = ["RUNS", "Measured", "figures", "main", "measured"]

_PLAIN = '[crypto]\nprofile = "unsafe-plaintext"\n'
_LARGE = 3000  # rows from which only sums alone, by the best linear estimate, are looked at: the rest takes minutes


@dataclass(frozen=True)
class Measured:
    """One run of the table.

    Args:
        group: ``default``, ``beyond`` what the caps should allow, or ``proposed``: within a stricter rule.
        rows: Records at every party; 70 % are trained on.
        bad_rate: Share of defaulters.
        boost: Section ``[boost]``.
        privacy: Section ``[privacy]``.
        idle: Columns of no use at each feature holder, besides one of use.
    """

    group: str
    rows: int
    bad_rate: float
    boost: str
    privacy: str = ""
    idle: int = 4


_STUMPS = "depth = 1\nlearning_rate = 0.1"
_SAMPLED = "row_sampling = 0.5"

RUNS = (
    Measured("default", 2450, 0.15, "trees = 20"),
    Measured("default", 2450, 0.25, "trees = 20"),
    Measured("default", 2450, 0.15, "trees = 31"),
    Measured("default", 5700, 0.15, "trees = 20"),
    Measured("default", 11500, 0.15, "trees = 20"),
    Measured("default", 22900, 0.05, "trees = 20", idle=6),
    Measured("beyond", 5700, 0.15, "trees = 71", idle=8),
    Measured("beyond", 11500, 0.15, "trees = 142", "enforce = false", idle=12),
    Measured("beyond", 22900, 0.05, "trees = 75", "enforce = false", idle=12),
    Measured("beyond", 2450, 0.15, "trees = 30", f"{_SAMPLED}\nenforce = false"),
    Measured("beyond", 11500, 0.15, "trees = 142", f"{_SAMPLED}\nenforce = false", idle=12),
    Measured("beyond", 2450, 0.15, f"trees = 121\n{_STUMPS}", f"{_SAMPLED}\nenforce = false"),
    Measured("beyond", 5700, 0.15, f"trees = 287\n{_STUMPS}", f"{_SAMPLED}\nenforce = false"),
    Measured("beyond", 2450, 0.15, "trees = 30", "gradient_bits = 2\nenforce = false"),
    Measured("beyond", 11500, 0.1, "trees = 49\nholder_bins = 32", "enforce = false", idle=12),
    Measured("proposed", 5700, 0.11, "trees = 49", idle=12),
    Measured("proposed", 11500, 0.15, "trees = 49", idle=12),
    Measured("proposed", 22900, 0.05, "trees = 49", idle=12),
    Measured("proposed", 22900, 0.026, "trees = 49", idle=12),
    Measured("proposed", 2450, 0.15, f"trees = 31\n{_STUMPS}", _SAMPLED),
    Measured("proposed", 5700, 0.15, f"trees = 50\n{_STUMPS}", _SAMPLED),
    Measured("proposed", 22900, 0.05, f"trees = 50\n{_STUMPS}", _SAMPLED),
)
"""What is measured. ``enforce = false`` where the caps as they are, or as they should be, refuse the run."""


def measured(run: Measured, folder: Path) -> PlayedBoost:
    """Plays one run of the table in a folder of its own."""
    sections = f"{_PLAIN}[boost]\n{run.boost}\n[privacy]\n{run.privacy}\n"
    columns = {"bank": 4, "tax": 1, "utility": 1}
    sample = Sample(run.rows, columns, bad_rate=run.bad_rate, sections=sections, idle=run.idle, model="boost")
    return play_boost(Rehearsal(write_sample(folder, sample)))


def figures(played: PlayedBoost, *, split: bool) -> dict[str, Found]:
    """What each attack finds, of features with or without a disclosed split; empty where there is none.

    Only features that were asked about to the end count where no split was disclosed.
    """
    features = [one for one in (played.split if split else played.unsplit) if played.view.asked(one)]
    known = {one: played.view.equations(one) for one in features}
    most = max((len(one.vectors) for one in known.values()), default=0)
    if not split:
        features = [one for one in features if len(known[one].vectors) == most]
    if not features:
        return {}
    tried = attacks(played.bad, noisy=known[features[0]].noise is not None)
    if len(played.bad) > _LARGE:
        tried = {"least squares": tried["least squares"]}
    return {
        name: together([recover(known[one], played.truth[one], played.bad, attack) for one in features])
        for name, attack in tried.items()
    }


def main(groups: Sequence[str]) -> None:
    """Writes the table to the standard output, line by line.

    Raises:
        BoundError: a group that there is not.
    """
    unknown = set(groups) - {run.group for run in RUNS}
    if unknown:
        raise BoundError("attack.group", f"{', '.join(sorted(unknown))}: default, beyond and proposed are the groups")
    sys.stdout.write(
        "| run | rows (bads) | equations | attack | features, splits | all rows | defaulters | most of one feature "
        "| top 1 % leverage |\n|---|---|---|---|---|---|---|---|---|\n"
    )
    for run in RUNS:
        if groups and run.group not in groups:
            continue
        with tempfile.TemporaryDirectory() as folder:
            played = measured(run, Path(folder))
        for split in (False, True) if len(played.bad) <= _LARGE else (False,):
            for name, found in figures(played, split=split).items():
                sys.stdout.write(_line(run, played, (name, split), found) + "\n")
                sys.stdout.flush()


def _line(run: Measured, played: PlayedBoost, attack: tuple[str, bool], found: Found) -> str:
    what = ", ".join(f"{run.boost}\n{run.privacy}".replace("enforce = false", "").split("\n")).strip(", ")
    name, split = attack
    cells = (
        what,
        f"{len(played.bad)} ({int(played.bad.sum())})",
        str(found.equations),
        name,
        f"{found.features}, {'split' if split else 'never split'}",
        f"{found.everyone:.2f}",
        f"{found.defaulters:.2f} ({found.right:.0%} for {found.chance:.0%})",
        f"{found.worst:.2f}",
        f"{found.edge:.2f}",
    )
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main(sys.argv[1:])
