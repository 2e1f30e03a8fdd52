"""FedCredit: institutions train and use one credit-risk model together without showing a record."""

__version__ = "0.1.0"
