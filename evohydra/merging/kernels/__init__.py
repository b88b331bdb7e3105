"""Kernels: a formula as one pass over memory, eager, compiled or as a C++ loop, with the same bits."""
