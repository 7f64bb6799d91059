"""The seam over pyopencl: the only folder that imports it. Runtimes that pip installed are made visible first."""
