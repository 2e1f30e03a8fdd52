"""A party's own records: readers, known public sets, the split of rows."""
