"""What runs a step: arenas, step table, pending factors, state. Nothing here is for users or authors of optimizers."""
