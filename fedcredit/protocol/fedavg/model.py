"""A finished network as one file: columns, encoding, shape and parameters, named by one digest."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from fedcredit.data.table import HolderTable
from fedcredit.errors import FedCreditError, IntegrityError
from fedcredit.kernels.nn import NetworkShape, Rows, logits, parameter_count
from fedcredit.kernels.nn_columns import Encoding
from fedcredit.protocol.fedavg.columns import BankColumns, Examples, examples_of

__all__ = ["AveragedModel"]

Floats = NDArray[np.float64]

_FORMAT = "fedcredit/averaged/1"


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is written."""

    format: Literal["fedcredit/averaged/1"]
    columns: BankColumns
    encoding: Encoding
    shape: NetworkShape
    seed: Annotated[int, msgspec.Meta(ge=0)]
    parameters: str


@dataclass(frozen=True, eq=False)
class AveragedModel:
    """A network that scores rows with the columns of its run.

    Args:
        columns: What a row has.
        encoding: How it becomes inputs.
        shape: The network.
        parameters: float64 (m,), each a float32.
        seed: Of the hash of categories.
    """

    columns: BankColumns
    encoding: Encoding
    shape: NetworkShape
    parameters: Floats
    seed: int

    def margins(self, examples: Examples) -> Floats:
        """Log-odds of default, float64 (n,)."""
        return logits(self.shape, self.parameters, self.inputs(examples))

    def score(self, table: HolderTable) -> Floats:
        """Probability of default of each row of a table, float64 (n,).

        Raises:
            DataError: a column is missing or of another kind, or there are no labels.
        """
        margin = self.margins(examples_of(table, self.columns, self.seed))
        found: Floats = 0.5 * (1.0 + np.tanh(0.5 * margin))  # the logistic function, without overflow
        return found

    def inputs(self, examples: Examples) -> Rows:
        """Rows as the network takes them."""
        return self.encoding.rows(examples.numbers, examples.buckets, examples.bad)

    def with_parameters(self, parameters: Floats) -> AveragedModel:
        """The same network with others."""
        return AveragedModel(self.columns, self.encoding, self.shape, parameters, self.seed)

    def to_bytes(self) -> bytes:
        """JSON; parameters are little-endian float32 in base64. The same model has the same bytes."""
        raw = base64.b64encode(self.parameters.astype("<f4").tobytes()).decode()
        file = _File(
            format="fedcredit/averaged/1",
            columns=self.columns,
            encoding=self.encoding,
            shape=self.shape,
            seed=self.seed,
            parameters=raw,
        )
        return msgspec.json.format(msgspec.json.encode(file), indent=2) + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes) -> AveragedModel:
        """Reads what `to_bytes` wrote.

        Raises:
            IntegrityError: the file is damaged.
        """
        try:
            file = msgspec.json.decode(data, type=_File)
            raw = np.frombuffer(base64.b64decode(file.parameters, validate=True), dtype="<f4")
        except (ValueError, TypeError, FedCreditError) as error:
            raise _damaged(type(error).__name__) from None
        shape = file.shape
        if len(raw) != parameter_count(shape) or not np.isfinite(raw).all():
            raise _damaged("parameters")
        if shape.numbers != file.encoding.inputs or shape.categories != file.encoding.codes:
            raise _damaged("shape")
        return cls(file.columns, file.encoding, shape, raw.astype(np.float64), file.seed)

    def digest(self) -> str:
        """SHA-256 of `to_bytes`, as 64 hex digits: banks with the same digest have the same model."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


def _damaged(what: str) -> IntegrityError:
    return IntegrityError("fedavg.model", "the file of an averaged model is damaged", what)
