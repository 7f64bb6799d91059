"""Devices: queue, memory, programs, caches, probe and discovery. Runtimes that pip installed are made visible first."""

from netcl.backends.opencl.device import icd

icd.register_installed_icds()
