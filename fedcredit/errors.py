"""The error catalogue: every failure this product reports is one of these.

A peer is shown ``code`` and ``public`` only; ``detail`` is for the local log. Neither may hold a data value.

    FedCreditError
    ├── SpecError          the run's configuration is wrong                        exit 2
    ├── DataError          a party's own records are wrong                         exit 2
    ├── BoundError         a proven bound does not hold for these sizes            exit 2
    ├── PolicyDenied       this house's policy does not let it leave               exit 3
    │   └── DisclosureRefused   the disclosure ledger's cap would be passed        exit 3
    ├── PeerError          a peer sent bytes that the protocol does not allow      exit 3
    ├── IntegrityError     stored or received evidence does not verify             exit 3
    └── TransportError     a peer is gone or late                                  exit 3
"""

from __future__ import annotations

__all__ = [
    "BoundError",
    "DataError",
    "DisclosureRefused",
    "FedCreditError",
    "IntegrityError",
    "PeerError",
    "PolicyDenied",
    "SpecError",
    "TransportError",
]


class FedCreditError(Exception):
    """Base of all errors of this product.

    Args:
        code: Stable machine-readable name such as ``"spec.unknown-key"``.
        public: One line that may be shown to anyone, a peer included. No data value.
        detail: More for the local log. No data value either.
        culprit: The party it is due to, where that is known.
    """

    exit_code = 3

    def __init__(self, code: str, public: str, detail: str = "", *, culprit: str = "") -> None:
        super().__init__(code, public, detail)
        self.code = code
        self.public = public
        self.detail = detail
        self.culprit = culprit

    def __str__(self) -> str:
        return f"{self.public} [{self.code}]"


class SpecError(FedCreditError):
    """The run's configuration is wrong; nothing has started."""

    exit_code = 2


class DataError(FedCreditError):
    """A party's own records do not fit what its configuration says of them."""

    exit_code = 2


class BoundError(FedCreditError):
    """Sizes or values exceed what is proven to decode exactly; raised before any key exists."""

    exit_code = 2


class PolicyDenied(FedCreditError):  # noqa: N818 - the name is part of the public catalogue
    """The gate of this house does not let a message out."""


class DisclosureRefused(PolicyDenied):
    """The disclosure ledger would pass its cap; the text says what would still be possible."""


class PeerError(FedCreditError):
    """A peer's bytes are malformed, out of turn, replayed, too large or wrongly signed."""


class IntegrityError(FedCreditError):
    """Evidence such as an audit log or a commitment does not verify."""


class TransportError(FedCreditError):
    """A peer is gone, or did not answer within the time-out."""
