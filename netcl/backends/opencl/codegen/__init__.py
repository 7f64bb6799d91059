"""OpenCL C as text: expressions, operands and loops as what the kernel files are given. Needs no OpenCL."""
