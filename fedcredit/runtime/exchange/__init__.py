"""The exchange: one outbound stream a node and run, over which sealed envelopes go between parties."""
