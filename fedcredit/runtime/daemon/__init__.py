"""The long-lived process of a node and of the coordinator: what it keeps up, tells and writes down."""
