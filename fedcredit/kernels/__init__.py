"""Pure numerical rules, in the clear; each is also the oracle of its encrypted counterpart."""
