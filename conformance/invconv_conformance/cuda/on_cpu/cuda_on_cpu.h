// CUDA's words on a CPU, for the kernel's source; `fibers.cpp` has what they do.
#pragma once

#define KERNEL extern "C" void
#define DEVICE inline
#define SHARED_MEMORY(name) unsigned char* name = shared_memory()
#define LOAD(order, p, value) value = load_in_order(order, p)
#define STORE(order, p, value) store_in_order(order, p, value)
#define __syncthreads() barrier_at(__LINE__)

struct Dim { unsigned x; };
inline Dim threadIdx, blockIdx, blockDim, gridDim;

unsigned char* shared_memory();
void barrier_at(int line);
int load_in_order(const char* order, const int* p);
void store_in_order(const char* order, int* p, int value);
int atomicAdd(int* p, int value);

inline float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline double fma(double a, double b, double c) { return __builtin_fma(a, b, c); }
inline float fabs(float a) { return __builtin_fabsf(a); }
inline double fabs(double a) { return __builtin_fabs(a); }
inline int max(int a, int b) { return a > b ? a : b; }
inline int min(int a, int b) { return a < b ? a : b; }
