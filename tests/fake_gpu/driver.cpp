// The driver, as far as torch and Triton ask for it. Modules are not read: a kernel is its name.
// Structures and numbers are those of cuda.h, which torch's wheels lack.
#include "gpu.h"

#include <dlfcn.h>

#include <cstdio>
#include <cstring>

using namespace gpu;

using Result = int;
static const Result SUCCESS = 0, INVALID_VALUE = 1, NOT_SUPPORTED = 801;

struct Kernel { std::string name; };
struct Launch {  // CUlaunchConfig
  unsigned grid[3], block[3], shared;
  cudaStream_t stream;
  void* attributes;
  unsigned n_attributes;
};
enum { MAX_THREADS, SHARED_SIZE, CONST_SIZE, LOCAL_SIZE, REGISTERS };  // CUfunction_attribute
static const int DEVICE_POINTER = 3;                                  // CUpointer_attribute

API Result cuInit(unsigned) { return SUCCESS; }
API Result cuDriverGetVersion(int* version) { return cudaDriverGetVersion(version); }
API Result cuGetErrorString(int error, const char** text) {
  *text = error == INVALID_VALUE ? "invalid argument" : "an error of the driver";
  return SUCCESS;
}
API Result cuDeviceGet(int* device, int ordinal) { *device = ordinal; return SUCCESS; }
API Result cuDeviceGetAttribute(int* value, int attribute, int device) {
  return cudaDeviceGetAttribute(value, (cudaDeviceAttr)attribute, device);  // the same numbers
}
API Result cuDevicePrimaryCtxGetState(int, unsigned* flags, int* is_active) {
  *flags = 0;
  *is_active = 1;
  return SUCCESS;
}
API Result cuCtxGetCurrent(void** context) { *context = &tally(); return SUCCESS; }  // any but null
API Result cuCtxSetCurrent(void*) { return SUCCESS; }
API Result cuDevicePrimaryCtxRetain(void** context, int) { return cuCtxGetCurrent(context); }
API Result cuCtxSetLimit(int, size_t) { return SUCCESS; }
API Result cuCtxGetLimit(size_t* limit, int) { *limit = 1 << 20; return SUCCESS; }
API Result cuCtxGetDevice(int* device) { cudaGetDevice(device); return SUCCESS; }

API Result cuModuleLoadData(void** module, const void*) {
  LOCK;
  if (unsafe("cuModuleLoadData")) return INVALID_VALUE;  // it allocates
  static int any;
  *module = &any;
  return SUCCESS;
}
API Result cuModuleUnload(void*) { return SUCCESS; }
API Result cuModuleGetFunction(Kernel** kernel, void*, const char* name) {
  *kernel = new Kernel{name};
  return SUCCESS;
}
API Result cuFuncGetAttribute(int* value, int attribute, Kernel*) {
  *value = attribute == MAX_THREADS ? 1024 : attribute == REGISTERS ? 32 : 0;
  return SUCCESS;
}
API Result cuFuncSetAttribute(Kernel*, int, int) { return SUCCESS; }
API Result cuFuncSetCacheConfig(Kernel*, int) { return SUCCESS; }

// Device memory and pinned memory can be used by kernels, other memory of the host cannot.
API Result cuPointerGetAttribute(void* value, int attribute, const void* pointer) {
  cudaPointerAttributes found;
  if (cudaPointerGetAttributes(&found, pointer) || !found.devicePointer) return INVALID_VALUE;
  if (attribute != DEVICE_POINTER) return NOT_SUPPORTED;
  memcpy(value, &found.devicePointer, sizeof found.devicePointer);
  return SUCCESS;
}

API Result cuLaunchKernelEx(const Launch* launch, Kernel* kernel, void**, void**) {
  LOCK;
  const unsigned *grid = launch->grid, *block = launch->block;
  bool is_empty = !grid[0] || !grid[1] || !grid[2] || !block[0] || !block[1] || !block[2];
  bool is_large = block[0] * block[1] * block[2] > 1024 || grid[1] > 65535 || grid[2] > 65535;
  if (is_empty || is_large || grid[0] > INT32_MAX) {
    violation("a shape that cannot be launched: " + kernel->name);
    return INVALID_VALUE;
  }
  return issue(stream_of(launch->stream), kernel->name) ? INVALID_VALUE : SUCCESS;
}

static Result unsupported() {
  fprintf(stderr, "stand-in GPU: a function of the driver that it does not have was called\n");
  return NOT_SUPPORTED;
}
API cudaError_t cudaGetDriverEntryPointByVersion(const char* name, void** function, unsigned,
                                                 unsigned long long,
                                                 cudaDriverEntryPointQueryResult* result) {
  *function = dlsym(RTLD_DEFAULT, name);
  if (!*function) *function = (void*)unsupported;
  if (result) *result = cudaDriverEntryPointSuccess;
  return cudaSuccess;
}
