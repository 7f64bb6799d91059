"""The search for the knobs that a kernel is built with on a device."""
