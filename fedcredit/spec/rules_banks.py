"""Rules of runs with several banks that span several keys; raised as in `fedcredit.spec.rules`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedcredit.spec.horizontal import MOST_ENCRYPTED_BANKS
from fedcredit.spec.section import refuse

if TYPE_CHECKING:
    from fedcredit.spec.model import RunSpec

__all__ = ["check_banks"]


def check_banks(spec: RunSpec) -> None:
    """Check the sections of several banks against each other and the parties.

    Raises:
        PydanticCustomError: with ``key`` and ``right`` in its context.
    """
    _check_partition(spec)
    _check_sums(spec)
    if spec.run.model != "fedavg":
        if spec.differential_privacy.unit != "none":
            right = (
                f'"{spec.differential_privacy.unit}" with model = "{spec.run.model}"; noise there is privacy.noise_rows'
            )
            refuse("differential_privacy.unit", f'{right}; use "none", or model = "fedavg"')
        if spec.split.test_source is not None:
            refuse("split.test_source", 'given without model = "fedavg"; hold rows out by test_fraction or test_ids')
    if spec.several_banks and spec.run.model != "fedavg" and not spec.simulation and spec.align.hidden:
        right = "hides rows, which several banks with feature holders cannot in this version"
        refuse("align.mode", f'"{spec.align.mode}" {right}; use "blind" with decoys = 0, or one bank')


def _check_partition(spec: RunSpec) -> None:
    section = spec.partition
    parts = [party for party in spec.party if party.part is not None]
    if section is None:
        if parts:
            refuse(f"party.{parts[0].name}.part", "given without [partition], which says how a source is taken apart")
        return
    if not spec.simulation:
        refuse("partition", 'is for simulation only and run.mode is "production"; each bank has its own records')
    if not parts:
        right = f'names "{section.party}", which is no "label_holder" of this file; name the party to take apart'
        refuse("partition.party", right)
    if (section.by == "column") != (section.column is not None):
        if section.column is None:
            refuse("partition.column", 'missing with by = "column"; name the column that tells one bank from another')
        refuse("partition.column", f'given with by = "{section.by}", which looks at no column; remove it')
    for party in parts:
        if party.columns is not None and section.column in party.columns:
            refuse("partition.column", f'"{section.column}" is a feature of "{party.name}" too; remove it there')


def _check_sums(spec: RunSpec) -> None:
    banks, section = len(spec.banks), spec.secure_sum
    if banks == 1:
        return
    if section.min_banks > banks:
        refuse("secure_sum.min_banks", f"found {section.min_banks}, but the run has {banks} banks; lower it")
    if section.profile == "masked+he" and banks > MOST_ENCRYPTED_BANKS:
        right = f'"masked+he" with {banks} banks; it carries {MOST_ENCRYPTED_BANKS}, use "masked"'
        refuse("secure_sum.profile", right)
    if section.colluding > banks - 2:
        right = f"found {section.colluding} of {banks} banks; at least two must be left that do not collude"
        refuse("secure_sum.colluding", right)
