"""A member's home: settings, roster, records, and what its people consent to."""
