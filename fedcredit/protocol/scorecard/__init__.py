"""The scorecard: selection, fit and scoring over columns that stay with their owners."""
