"""The sandbox upstream: a small provider that speaks real protocols, to try and test CrossModel without a real one."""
