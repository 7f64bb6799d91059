"""The conformance suite: every call of the backend protocol, on every backend there is or the one that is named."""
