"""What `scripts/bench speculation` is made of."""
