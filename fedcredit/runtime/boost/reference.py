"""XGBoost on pooled rows, cut into the same bins: what the field's library makes of data that nobody may pool."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcredit.protocol.bin.features import OwnFeature
from fedcredit.protocol.boost.columns import usable
from fedcredit.protocol.boost.plan import BoostPlan, plan_boost
from fedcredit.runtime.boost.oracle import PooledColumns

__all__ = ["reference_margins"]

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


def reference_margins(pooled: PooledColumns, train: Bools) -> Floats | None:
    """Log-odds of default of all rows by XGBoost, without noise, caps or rounding; None where it is not installed.

    The parameters are those of the run, local first trees included. XGBoost has no minimum of rows in a child; it takes
    part through the minimum of second derivatives only.

    Args:
        pooled: Columns of all parties in the label holder's number of bins.
        train: bool (n,), rows to train on.
    """
    try:
        import pandas as pd  # noqa: PLC0415 - optional, for comparison only
        import xgboost  # noqa: PLC0415 - optional, for comparison only
    except ImportError:
        return None
    columns = {
        f"{party}/{feature.shape.code}": _column(feature, pd)
        for party, features in pooled.own.items()
        for feature in features
        if usable(feature)
    }
    frame = pd.DataFrame(columns)
    plan = plan_boost(pooled.spec)
    own = [name for name in columns if name.startswith(f"{pooled.spec.label_holder.name}/")]
    local = plan.boost.first_trees_local if own else 0
    rate = float(pooled.bad[train].mean())
    margin = np.full(len(pooled.bad), np.log(rate / (1.0 - rate)))
    for names, rounds in ((own, local), (list(columns), plan.boost.trees - plan.boost.first_trees_local)):
        if rounds:
            some = frame[names]
            data = xgboost.DMatrix(
                some[train], label=pooled.bad[train], base_margin=margin[train], enable_categorical=True
            )
            model = xgboost.train(_parameters(plan), data, num_boost_round=rounds)
            every = xgboost.DMatrix(some, base_margin=margin, enable_categorical=True)
            margin = np.asarray(model.predict(every, output_margin=True), dtype=np.float64)
    return margin


def _column(feature: OwnFeature, pandas: Any) -> Any:
    codes, prebins = feature.codes, feature.prebins
    if not feature.shape.ordered:
        return pandas.Categorical(codes, categories=range(feature.shape.bins))
    values = codes.astype(np.float64)
    extra = codes >= feature.shape.ordered  # special codes come before the first bin, as their negative numbers do
    values[extra] = feature.shape.ordered - 1.0 - codes[extra]
    if prebins.has_missing:
        values[codes == prebins.bins - 1] = np.nan
    return values


def _parameters(plan: BoostPlan) -> dict[str, Any]:
    boost = plan.boost
    grown = {"grow_policy": "lossguide", "max_leaves": boost.leaves} if boost.growth == "leaf" else {}
    return {
        "objective": "binary:logistic",
        "tree_method": "hist",
        "max_bin": 1024,  # every bin is a value of its own already
        "eta": boost.learning_rate,
        "max_depth": boost.depth,
        "lambda": boost.l2,
        "min_child_weight": boost.min_child_weight,
        "subsample": plan.privacy.row_sampling,
        "colsample_bytree": boost.column_sampling,
        "max_cat_to_onehot": 1,
        "nthread": 1,
        "seed": 0,
        **grown,
    }
