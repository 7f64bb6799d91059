"""The operations: a final class for each, with its plans and launches, named like its kernel file."""
