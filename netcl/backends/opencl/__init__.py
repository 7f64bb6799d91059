"""The backend over pyopencl. ``device/`` alone imports it; ``codegen/`` is text and needs neither it nor a runtime."""
