"""What a house lets out: policy, gate, disclosure ledger, audit."""
