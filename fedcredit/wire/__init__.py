"""Messages as canonical bytes, the envelope around them, and what each of them is allowed to say."""
