"""A party's own records: readers, known public sets, the split of rows."""

from fedcredit.data.known import KnownSet, find_known, known_sets
from fedcredit.data.load import SourceCache, load_table, load_tables
from fedcredit.data.split import held_out_rows, ids_test_mask, test_mask, time_test_mask
from fedcredit.data.table import HolderTable, table_digest

__all__ = [
    "HolderTable",
    "KnownSet",
    "SourceCache",
    "find_known",
    "held_out_rows",
    "ids_test_mask",
    "known_sets",
    "load_table",
    "load_tables",
    "table_digest",
    "test_mask",
    "time_test_mask",
]
