"""Shape of the files of a run directory that a report reads. Unnamed keys are ignored; optional ones may be absent."""

from __future__ import annotations

import msgspec

__all__ = [
    "Alignment",
    "Bin",
    "Boost",
    "BoostCaps",
    "Calibration",
    "Compared",
    "Disclosure",
    "Dropped",
    "Encryption",
    "Feature",
    "Fit",
    "Grown",
    "Hybrid",
    "HybridBank",
    "HybridModel",
    "Leakage",
    "LedgerPage",
    "Metrics",
    "Network",
    "Privacy",
    "Scale",
    "Scorecard",
    "Sent",
    "Settings",
    "Spent",
    "Step",
    "Summary",
]


class Encryption(msgspec.Struct, frozen=True):
    """How the rows were protected; ``enabled`` has no default, because a report must not guess it."""

    enabled: bool
    scheme: str = ""
    profile: str = ""
    poly_degree: int | None = None
    plain_modulus_bits: float | None = None
    security_bits: float | None = None


class Metrics(msgspec.Struct, frozen=True):
    """Measures of one model on the held-out rows."""

    auc: float | None = None
    ks: float | None = None
    gini: float | None = None
    brier: float | None = None
    ece: float | None = None


class Compared(msgspec.Struct, frozen=True):
    """The same measures for the models that a simulation can compare."""

    alone: Metrics | None = None
    federated: Metrics | None = None
    pooled_plaintext: Metrics | None = None
    unprotected: Metrics | None = None
    reference: Metrics | None = None


class Disclosure(msgspec.Struct, frozen=True):
    """What the encrypted answers themselves may give away; what is counted stands in the ledgers."""

    statistical_leak_log2: float | None = None


class Fit(msgspec.Struct, frozen=True):
    """How the coefficients were found."""

    method: str | None = None
    totals: int | None = None
    gradients: int | None = None
    ridge: float | None = None
    features_selected: int | None = None
    features_offered: int | None = None


class Calibration(msgspec.Struct, frozen=True):
    """Logistic recalibration on held-out rows, and the bad rate the probabilities speak of."""

    intercept: float | None = None
    slope: float | None = None
    slope_error: float | None = None
    true_bad_rate: float | None = None


class Grown(msgspec.Struct, frozen=True):
    """Measures after one tree."""

    tree: int
    train_auc: float
    validation_auc: float | None = None


class Boost(msgspec.Struct, frozen=True):
    """Figures of boosted trees: those kept and those grown, and what was disclosed to choose them."""

    trees: int
    trees_grown: int
    depth: int
    growth: str
    max_leaves: int
    leaves: int
    gradient_bits: int
    bins: int
    holder_bins: int
    thresholds_disclosed: dict[str, int]
    history: list[Grown]
    trees_local: int = 0
    stopped_early: bool = False
    bytes_per_tree: int | None = None


class Network(msgspec.Struct, frozen=True):
    """A modelled network, simulation only."""

    modelled_seconds: float | None = None


class Alignment(msgspec.Struct, frozen=True):
    """How rows were found: ``registry``, ``blind`` with some decoys for each customer, or ``plain``."""

    mode: str
    decoys: float | None = None
    rows_left_out: int | None = None


class HybridModel(msgspec.Struct, frozen=True):
    """One model of a hybrid run's comparison; the mean weights each bank's AUC by its held-out rows."""

    key: str
    name: str
    what: str
    auc: float | None = None


class HybridBank(msgspec.Struct, frozen=True):
    """One bank of a hybrid run: its rows, and its AUC under each model by key."""

    name: str
    rows_train: int
    rows_test: int
    positives_train: int
    positives_test: int
    auc: dict[str, float | None]


class Hybrid(msgspec.Struct, frozen=True):
    """What several banks had of a hybrid run; the models in the order in which they are told."""

    main: str
    models: list[HybridModel]
    banks: list[HybridBank]
    equal_pooled_plaintext: bool
    secure_sum: str
    sums: int
    values_summed: int
    own_intercepts: bool
    facts: list[str] = []


class Summary(msgspec.Struct, frozen=True):
    """summary.json."""

    run_id: str
    spec_digest: str
    bank: str
    parties: list[str] | dict[str, str]
    encryption: Encryption
    name: str | None = None
    model: str = "scorecard"
    mode: str | None = None
    entropy: str | None = None
    align: Alignment | None = None
    rows_common: int | None = None
    rows_train: int | None = None
    rows_test: int | None = None
    positives_test: int | None = None
    auc_test: float | None = None
    ks_test: float | None = None
    brier_test: float | None = None
    ece_test: float | None = None
    auc_label_holder_alone: float | None = None
    auc_pooled_plaintext: float | None = None
    auc_pooled_unprotected: float | None = None
    auc_pooled_reference: float | None = None
    model_equals_pooled_plaintext: bool | None = None
    scores_equal_pooled_plaintext: bool | None = None
    metrics: Compared = Compared()
    fit: Fit = Fit()
    calibration: Calibration = Calibration()
    disclosure: Disclosure = Disclosure()
    boost: Boost | None = None
    hybrid: Hybrid | None = None
    network: Network | None = None
    ledger_scope: str | None = None
    seconds: dict[str, float] = msgspec.field(default_factory=dict)
    cpu_seconds: dict[str, float] = msgspec.field(default_factory=dict)
    bytes_sent: dict[str, int] = msgspec.field(default_factory=dict)
    messages: int | None = None
    max_rss_mb: float | None = None
    versions: dict[str, str | None] = msgspec.field(default_factory=dict)
    git: str | dict[str, str | bool | None] | None = None


class Privacy(msgspec.Struct, frozen=True):
    """``[privacy]`` of the specification; nothing has a default, because a report must not guess protection."""

    enforce: bool
    noise_rows: float


class BoostCaps(msgspec.Struct, frozen=True):
    """``[boost]`` of the specification, as far as it protects."""

    holder_thresholds: int


class Settings(msgspec.Struct, frozen=True):
    """spec.toml, as far as every party may be told of it."""

    privacy: Privacy
    boost: BoostCaps | None = None


class Scale(msgspec.Struct, frozen=True):
    """Scale of the points: ``base_score`` at ``base_odds`` goods to one bad, doubling each ``pdo`` points."""

    base_score: float
    base_odds: float
    pdo: float


class Bin(msgspec.Struct, frozen=True):
    """One bin; counts stand in the label holder's file only, labels in the owner's only."""

    woe: float
    points: float
    label: str | None = None
    goods: int | None = None
    bads: int | None = None


class Feature(msgspec.Struct, frozen=True):
    """One feature of the scorecard as one party knows it."""

    owner: str
    code: str
    bins: list[Bin]
    name: str | None = None
    kind: str | None = None
    iv: float | None = None
    stability: float | None = None
    coefficient: float | None = None
    standard_error: float | None = None
    p_value: float | None = None
    sign_ok: bool | None = None


class Dropped(msgspec.Struct, frozen=True):
    """One feature that did not enter the scorecard, and why."""

    owner: str
    code: str
    reason: str
    name: str | None = None
    value: float | None = None
    limit: float | None = None
    against: str | list[str] | None = None


class Scorecard(msgspec.Struct, frozen=True):
    """model/PARTY/scorecard.json."""

    party: str
    role: str
    features: list[Feature]
    dropped: list[Dropped] = []
    scale: Scale | None = None
    base_points: float | None = None
    intercept: float | None = None


class Step(msgspec.Struct, frozen=True):
    """One field of one message: who reads it, what it says, and what bounds it."""

    protocol: str
    receiver: str
    message: str
    field: str
    learns: str
    bound: str


class Spent(msgspec.Struct, frozen=True):
    """One currency of a ledger; equations are counted by feature and give the largest."""

    cap: float | None = None
    spent: float | None = None
    largest: float | None = None
    features: int | None = None


class LedgerPage(msgspec.Struct, frozen=True):
    """What one party disclosed to one counterparty."""

    counterparty: str | None = None
    equations: Spent | None = None
    row_bits: Spent | None = None
    feature_bits: Spent | None = None
    bins_returned: Spent | None = None
    ids_asked: Spent | None = None


class Leakage(msgspec.Struct, frozen=True):
    """leakage.json."""

    steps: list[Step]
    ledger: dict[str, LedgerPage | list[LedgerPage]] = msgspec.field(default_factory=dict)
    statistical_leak_log2: float | None = None


class Sent(msgspec.Struct, frozen=True, rename={"kind": "type", "size": "bytes"}):
    """One line of transcript.jsonl."""

    sender: str
    recipient: str
    kind: str
    size: int
    stage: str = ""
