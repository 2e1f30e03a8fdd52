"""Commands that measure; each module is one."""
