"""The messages of each model that runs between houses; kept apart, so that consent can be asked without the models."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from fedcredit.protocol.align.messages import SCHEMA as ALIGN
from fedcredit.protocol.bin.messages import SCHEMA as BIN
from fedcredit.protocol.boost.messages import SCHEMA as BOOST
from fedcredit.protocol.fedavg.messages import SCHEMA as FEDAVG
from fedcredit.protocol.group_sum.messages import SCHEMA as GROUP_SUM
from fedcredit.protocol.scorecard.messages import SCHEMA as SCORECARD
from fedcredit.protocol.secure_sum.messages import SCHEMA as SECURE_SUM
from fedcredit.protocol.select.messages import SCHEMA as SELECT
from fedcredit.spec.model import RunSpec
from fedcredit.types import PartyId
from fedcredit.wire.schema import ProtocolSchema

__all__ = ["MODEL_SCHEMAS", "schemas_of"]

MODEL_SCHEMAS: Mapping[str, tuple[ProtocolSchema, ...]] = MappingProxyType(
    {
        "scorecard": (ALIGN, GROUP_SUM, BIN, SELECT, SCORECARD),
        "boost": (ALIGN, GROUP_SUM, SELECT, BOOST),
        "fedavg": (SECURE_SUM, FEDAVG),
    }
)
"""By ``run.model``; as in `fedcredit.runtime.models.MODEL_RUNS` and `fedcredit.runtime.rounds.models.ROUND_MODELS`."""


def schemas_of(spec: RunSpec, party: PartyId) -> tuple[ProtocolSchema, ...]:
    """The messages that a party of a run takes part in; banks that train together with feature holders add up too.

    Raises:
        KeyError: the model does not run between houses.
    """
    own = MODEL_SCHEMAS[spec.run.model]
    adds = spec.several_banks and SECURE_SUM not in own and party in {bank.name for bank in spec.banks}
    return (*own, SECURE_SUM) if adds else own
