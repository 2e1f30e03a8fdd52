"""Binning, a feature holder's side."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedcredit.crypto.group_sum import Grouping
from fedcredit.protocol.bin.conversation import BIN_FIELDS, bin_conversation
from fedcredit.protocol.bin.features import OwnFeature
from fedcredit.protocol.bin.messages import Budgets, FeatureShapes, RunBasis
from fedcredit.protocol.channel import Channel
from fedcredit.protocol.group_sum.answerer import GroupSumAnswerer, price_each
from fedcredit.protocol.group_sum.session import KeptSecrets, Session
from fedcredit.types import PartyId
from fedcredit.wire.disclosure import Basis, Cost, CostKind, Declaration, Spend
from fedcredit.wire.message import encode

__all__ = ["AnswerInputs", "answer_bins"]

_UNLIMITED = 1e9  # what is announced where no cap is enforced


@dataclass(frozen=True)
class AnswerInputs:
    """What a feature holder brings.

    Args:
        label_holder: Who asks.
        features: Own features in the order of this run.
        min_rows: A bin of fewer common rows is refused before any hint exists; 0 = bins may be empty.
        data_version: Name of the data in the ledger.
        keep: Randomness and escrow.
    """

    label_holder: PartyId
    features: Sequence[OwnFeature]
    min_rows: int
    data_version: str
    keep: KeptSecrets


async def answer_bins(channel: Channel, session: Session, inputs: AnswerInputs) -> Basis:
    """Announces the features' shapes and answers their counts.

    Returns:
        What the label holder signed of the run's size.

    Raises:
        DisclosureRefused: the ledger's cap does not allow it; nothing was sent.
    """
    channel.stage("bin")
    label_holder, features = inputs.label_holder, inputs.features
    signed = await channel.receive(label_holder, RunBasis)
    basis = Basis(n_eff=signed.n_eff, n_bad=signed.n_bad, noise_rows=0.0)
    codes = [feature.shape.code for feature in features]
    names = {feature.shape.code: feature.name for feature in features}
    costs = tuple(Cost(CostKind.EQUATIONS, names[code], BIN_FIELDS) for code in codes)
    rows = len(features[0].codes)
    declaration = Declaration(data_version=inputs.data_version, basis=basis, costs=costs, purpose="bin", rows=rows)
    channel.declare(label_holder, declaration)
    shapes = FeatureShapes(features=[feature.shape for feature in features])
    # The whole price is paid here: shapes already follow the common rows, which are the label holder's choice.
    await channel.send(label_holder, shapes, spend=Spend(hashlib.sha256(encode(shapes)).hexdigest(), costs))
    matrix = np.column_stack([feature.codes for feature in features])
    grouping = Grouping(matrix, tuple(feature.shape.bins for feature in features), min_rows=inputs.min_rows)
    conversation = bin_conversation(session, grouping.rows)
    answerer = await GroupSumAnswerer.open(channel, conversation, label_holder, grouping, inputs.keep)
    await answerer.answer(price_each([]))
    own = [names[code] for code in codes]
    left = channel.headroom(label_holder, inputs.data_version, basis, CostKind.EQUATIONS, own)
    await channel.send(label_holder, Budgets(equations=[min(room, _UNLIMITED) for room in left]))
    return basis
