// Marks in CUDA's headers that mean nothing to a compiler for CPUs. torch's wheels bring the headers
// without this one; where the wheel nvidia-cuda-crt or a toolkit has it beside them, that is used.
#pragma once
#define CUDARTAPI
#define __align__(n) __attribute__((aligned(n)))
#define __builtin_align__(n) __attribute__((aligned(n)))
#define __cudart_builtin__
#define __device__
#define __device_builtin__
#define __device_builtin_surface_type__
#define __device_builtin_texture_type__
#define __forceinline__ inline __attribute__((always_inline))
#define __global__
#define __host__
