"""The speed of netcl over its history; run with asv."""
