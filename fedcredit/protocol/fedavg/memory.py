"""What a bank remembers of an averaging run between two sums, and its bytes for the bank's own disk."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from fedcredit.errors import IntegrityError
from fedcredit.kernels.nn_columns import Encoding
from fedcredit.kernels.nn_server import ServerState
from fedcredit.protocol.fedavg.held_out import Scores
from fedcredit.protocol.fedavg.rounds import RoundRecord
from fedcredit.types import PartyId

__all__ = ["Asked", "Controls", "Memory", "Standing"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_FORMAT = "fedcredit/averaging-state/1"


@dataclass(frozen=True, eq=False)
class Asked:
    """What a bank brings to a sum.

    Args:
        what: Name of the sum, the same at all banks.
        values: int64 (m,).
        bound: Largest absolute value any bank may bring.
    """

    what: str
    values: Ints
    bound: int


@dataclass(frozen=True, eq=False)
class Controls:
    """Control variates of SCAFFOLD.

    Args:
        shared: float64 (m,).
        own: float64 (m,).
    """

    shared: Floats
    own: Floats


@dataclass(frozen=True, eq=False)
class Standing:
    """Where a run stands: what a discarded round goes back to.

    Args:
        server: Shared parameters and the state of their steps.
        controls: None without SCAFFOLD.
        rounds: Rounds that made it.
    """

    server: ServerState
    controls: Controls | None
    rounds: int


@dataclass
class Memory:
    """What a bank remembers.

    Attributes:
        stage: ``exponents``, ``moments``, ``round``, ``judge``, ``score`` or ``finished``.
        asked: What it brings to the sum under way.
        members: Banks of the last total.
        taken: Totals taken.
        rows: Training rows of all banks.
        scales: int64 (p,), exponents of the columns' scales.
        buckets: int64 (c, 4097), rows of all banks by bucket; empty once the encoding is there.
        encoding: Of all columns.
        standing: Now.
        before: Before the last round; None where there is nothing to go back to.
        round: Rounds so far, discarded ones too.
        history: Them.
        best_loss: Least validation loss so far.
        best: float64 (m,), its parameters.
        best_round: Rounds that made them.
        stale: Rounds since.
        chosen: float64 (m,), the model.
        personal: float64 (m,), the bank's own.
        pooled: Scores of all banks' held-out rows.
    """

    stage: str
    asked: Asked | None = None
    members: tuple[PartyId, ...] = ()
    taken: int = 0
    rows: int = 0
    scales: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    buckets: Ints = field(default_factory=lambda: np.zeros((0, 0), dtype=np.int64))
    encoding: Encoding | None = None
    standing: Standing | None = None
    before: Standing | None = None
    round: int = 0
    history: list[RoundRecord] = field(default_factory=list)
    best_loss: float | None = None
    best: Floats | None = None
    best_round: int = 0
    stale: int = 0
    chosen: Floats | None = None
    personal: Floats | None = None
    pooled: Scores | None = None

    def to_bytes(self, about: str) -> bytes:
        """Its bytes, tied to the plan and the columns named by ``about``."""
        return msgspec.msgpack.encode((_FORMAT, about, self), enc_hook=_plain)

    @classmethod
    def from_bytes(cls, data: bytes, about: str) -> Memory:
        """Reads what `to_bytes` gave.

        Raises:
            IntegrityError: damaged, or of another plan or other columns.
        """
        try:
            format_, found, memory = msgspec.msgpack.decode(data, type=tuple[str, str, cls], dec_hook=_array)  # type: ignore[valid-type]
        except (ValueError, TypeError) as error:
            raise IntegrityError("fedavg.state", "the state of this averaging run is damaged", str(error)) from None
        if format_ != _FORMAT or found != about:
            right = "the state of this averaging run is of another spec, other columns or another version"
            raise IntegrityError("fedavg.state", right)
        held: Memory = memory
        return held


def _plain(value: Any) -> Any:
    """An array as type, shape and bytes."""
    if isinstance(value, np.ndarray):
        kind = "<i8" if value.dtype.kind == "i" else "<f8"
        return (kind, list(value.shape), value.astype(kind).tobytes())
    raise TypeError(type(value).__name__)


def _array(kind: type, value: Any) -> Any:
    """An array from what `_plain` made of it."""
    if getattr(kind, "__origin__", kind) is not np.ndarray:
        raise TypeError(str(kind))
    code, shape, raw = value
    if code not in {"<i8", "<f8"}:
        raise TypeError(str(code))
    return np.frombuffer(raw, dtype=code).reshape(shape).astype(code[1:])
