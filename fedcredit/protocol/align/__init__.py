"""Who is who: a common order of rows over all parties."""
