// Memory, copies, kernels and the device. Kernels compute nothing, but for fills and comparisons.
#include "gpu.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <unordered_map>

using namespace gpu;

// -------------------------------------------------------------------------------------- memory

static const size_t PAGE = 2 << 20;

// The memory of a device: at `base` for the device, where the host may not touch it, and once more
// at `alias` for copies. Nothing is used of the machine's memory until it is written.
struct Memory {
  size_t total = 0, used = 0;
  char *base = nullptr, *alias = nullptr;
  std::map<size_t, size_t> blocks;  // offset -> size

  Memory() {
    const char* wanted = getenv("FAKE_GPU_GB");
    total = (size_t)((wanted ? atof(wanted) : 141) * 1e9) / PAGE * PAGE;
    int file = memfd_create("fake_gpu", MFD_CLOEXEC);
    size_t room = 2 * total;  // addresses are not reused at once, and never run short
    if (file < 0 || ftruncate(file, room)) abort();
    base = (char*)mmap(nullptr, room, PROT_NONE, MAP_SHARED | MAP_NORESERVE, file, 0);
    int rights = PROT_READ | PROT_WRITE;
    alias = (char*)mmap(nullptr, room, rights, MAP_SHARED | MAP_NORESERVE, file, 0);
    if (base == MAP_FAILED || alias == MAP_FAILED) abort();
    madvise(base, room, MADV_DONTFORK);
    madvise(alias, room, MADV_DONTFORK);
    close(file);
  }
  bool holds(const void* p) const { return p >= base && p < base + 2 * total; }

  void* take(size_t size) {
    size = std::max(PAGE, (size + PAGE - 1) / PAGE * PAGE);
    if (used + size > total) return nullptr;
    size_t at = 0;
    for (auto& [offset, length] : blocks) {
      if (offset - at >= size) break;
      at = offset + length;
    }
    if (at + size > 2 * total) return nullptr;
    blocks[at] = size;
    used += size;
    return base + at;
  }
  bool give(void* p) {
    auto found = blocks.find((char*)p - base);
    if (found == blocks.end()) return false;
    madvise(alias + found->first, found->second, MADV_REMOVE);  // zeros, when it is taken again
    used -= found->second;
    blocks.erase(found);
    return true;
  }
};

static std::map<int, Memory>& memories() {
  static auto* all = new std::map<int, Memory>;
  return *all;
}
static int device() { int d; cudaGetDevice(&d); return d; }
static Memory& memory() { return memories()[device()]; }
static Memory* memory_of(const void* p) {
  for (auto& [d, memory] : memories()) if (memory.holds(p)) return &memory;
  return nullptr;
}
static std::map<const char*, size_t>& pinned() {
  static auto* all = new std::map<const char*, size_t>;
  return *all;
}
static bool is_pinned(const void* p) {
  auto after = pinned().upper_bound((const char*)p);
  if (after == pinned().begin()) return false;
  --after;
  return (const char*)p < after->first + after->second;
}

void* gpu::host_side(const void* p) {
  LOCK;
  Memory* found = memory_of(p);
  return found ? found->alias + ((char*)p - found->base) : (void*)p;
}

API cudaError_t cudaMalloc(void** p, size_t size) {
  LOCK;
  tally().calls["cudaMalloc"]++;
  if (auto error = unsafe("cudaMalloc")) return error;
  *p = memory().take(size);
  return *p ? cudaSuccess : fail(cudaErrorMemoryAllocation);
}
API cudaError_t cudaFree(void* p) {
  LOCK;
  if (!p) return cudaSuccess;
  tally().calls["cudaFree"]++;
  if (auto error = unsafe("cudaFree")) return error;
  for (Stream* stream : streams()) see(host(), stream->seen);  // it waits for the device
  Memory* found = memory_of(p);
  return found && found->give(p) ? cudaSuccess : fail(cudaErrorInvalidValue);
}
API cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  LOCK;
  *total = memory().total;
  *free = *total - memory().used;
  return cudaSuccess;
}
API cudaError_t cudaHostAlloc(void** p, size_t size, unsigned) {
  LOCK;
  tally().calls["cudaHostAlloc"]++;
  if (auto error = unsafe("cudaHostAlloc")) return error;
  if (posix_memalign(p, 4096, std::max<size_t>(size, 1))) return fail(cudaErrorMemoryAllocation);
  pinned()[(char*)*p] = size;
  return cudaSuccess;
}
API cudaError_t cudaFreeHost(void* p) {
  LOCK;
  if (auto error = unsafe("cudaFreeHost")) return error;
  pinned().erase((char*)p);
  free(p);
  return cudaSuccess;
}
API cudaError_t cudaHostRegister(void* p, size_t size, unsigned) {
  LOCK;
  pinned()[(char*)p] = size;
  return cudaSuccess;
}
API cudaError_t cudaHostUnregister(void* p) { LOCK; pinned().erase((char*)p); return cudaSuccess; }
API cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* a, const void* p) {
  LOCK;
  *a = {};
  a->type = cudaMemoryTypeUnregistered;
  a->device = -2;
  for (auto& [d, memory] : memories())
    if (memory.holds(p)) {
      a->type = cudaMemoryTypeDevice;
      a->device = d;
      a->devicePointer = (void*)p;
      return cudaSuccess;
    }
  a->hostPointer = (void*)p;
  if (!is_pinned(p)) return cudaSuccess;
  a->type = cudaMemoryTypeHost;
  a->device = device();
  a->devicePointer = (void*)p;
  return cudaSuccess;
}

// -------------------------------------------------------------------------------------- copies

static cudaError_t copy(void* to, const void* from, size_t size, cudaStream_t s, bool is_async) {
  LOCK;
  Stream* stream = stream_of(s);
  bool in = !memory_of(from), out = !memory_of(to);
  bool is_pageable = (in && !is_pinned(from)) || (out && !is_pinned(to));
  std::string name = std::string("copy ") + (in ? "host" : "device") + " to " +
                     (out ? "host" : "device") + (is_pageable ? ", pageable" : "");
  tally().copies[name]++;
  if (!is_async)
    if (auto error = unsafe("cudaMemcpy")) return error;
  if (stream->capture && is_pageable) {
    spoil(stream->capture, name);
    return fail(cudaErrorStreamCaptureUnsupported);
  }
  auto work = [=] { memmove(host_side(to), host_side(from), size); };
  if (auto error = issue(stream, name, work)) return error;
  if (!is_async || (out && is_pageable)) wait_for(stream, "copy");
  return cudaSuccess;
}
API cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t n, cudaMemcpyKind,
                                cudaStream_t s) {
  return copy(to, from, n, s, true);
}
API cudaError_t cudaMemcpy(void* to, const void* from, size_t n, cudaMemcpyKind) {
  return copy(to, from, n, nullptr, false);
}
API cudaError_t cudaMemcpyPeerAsync(void* to, int, const void* from, int, size_t n,
                                    cudaStream_t s) {
  return copy(to, from, n, s, true);
}
API cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch,
                                  size_t width, size_t height, cudaMemcpyKind, cudaStream_t s) {
  for (size_t row = 0; row < height; row++)
    if (auto error =
            copy((char*)to + row * to_pitch, (char*)from + row * from_pitch, width, s, true))
      return error;
  return cudaSuccess;
}
API cudaError_t cudaMemsetAsync(void* p, int value, size_t size, cudaStream_t s) {
  LOCK;
  return issue(stream_of(s), "memset", [=] { memset(host_side(p), value, size); });
}
API cudaError_t cudaMemset(void* p, int value, size_t size) {
  LOCK;
  if (auto error = unsafe("cudaMemset")) return error;
  return cudaMemsetAsync(p, value, size, nullptr);
}

// ------------------------------------------------------------------------------------- kernels

static std::unordered_map<const void*, std::string>& kernels() {
  static auto* all = new std::unordered_map<const void*, std::string>;
  return *all;
}
API void** __cudaRegisterFatBinary(void*) { static void* handle; return &handle; }
API void __cudaRegisterFatBinaryEnd(void**) {}
API void __cudaUnregisterFatBinary(void**) {}
API char __cudaInitModule(void**) { return 1; }
API void __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}
API void __cudaRegisterFunction(void**, const char* function, char*, const char* name, int, uint3*,
                                uint3*, dim3*, dim3*, int*) {
  LOCK;
  kernels().emplace(function, name);
}
API cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* function) {
  *kernel = (cudaKernel_t)function;
  return cudaSuccess;
}

struct Shape { dim3 grid, block; size_t shared; cudaStream_t stream; };
static thread_local std::vector<Shape> shapes;  // of kernel<<<...>>>(...) under way
API unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, cudaStream_t s) {
  shapes.push_back({grid, block, shared, s});
  return 0;
}
API cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* s) {
  Shape shape = shapes.back();
  shapes.pop_back();
  *grid = shape.grid;
  *block = shape.block;
  *shared = shape.shared;
  *(cudaStream_t*)s = shape.stream;
  return cudaSuccess;
}

// What torch's kernels are called and get (torch 2.13, ATen/native/cuda/{FillKernel,CompareKernels,
// CUDALoops}): vectorized_elementwise_kernel(int n, function, pointers to output and input), where
// the function holds the value, or a comparison (==..: ge, gt, le, lt) and a number.
static Work computed(const std::string& name, void** args) {
  if (!args || name.find("vectorized_elementwise_kernel") == name.npos) return {};
  int n = *(int*)args[0];
  size_t fill = name.find("FillFunctorI");
  if (fill != name.npos) {
    char type = name[fill + strlen("FillFunctorI")];  // as in mangled names
    size_t size = strchr("dlm", type) ? 8 : strchr("fij", type) ? 4 : strchr("abh", type) ? 1 : 2;
    if (type == 'N') size = name.find("complex") == name.npos ? 2 : 0;
    std::string value((char*)args[1], size);
    char* to = *(char**)args[2];
    return [=] {
      char* at = (char*)host_side(to);
      for (int i = 0; i < n && size; i++) memcpy(at + i * size, value.data(), size);
    };
  }
  if (name.find("compare_scalar_kernelIfE") != name.npos) {
    int how = ((int*)args[1])[0];
    float number = ((float*)args[1])[1];
    char *to = ((char**)args[2])[0], *from = ((char**)args[2])[1];
    return [=] {
      auto* out = (char*)host_side(to);
      auto* x = (float*)host_side(from);
      for (int i = 0; i < n; i++)
        out[i] = how == 0   ? x[i] >= number
                 : how == 1 ? x[i] > number
                 : how == 2 ? x[i] <= number
                            : x[i] < number;
    };
  }
  return {};
}

static cudaError_t run(const void* function, dim3 grid, dim3 block, void** args, cudaStream_t s) {
  LOCK;
  auto found = kernels().find(function);
  std::string name = found == kernels().end() ? "unknown kernel" : found->second;
  bool is_empty = !grid.x || !grid.y || !grid.z || !block.x || !block.y || !block.z;
  if (is_empty || block.x * block.y * block.z > 1024 || grid.y > 65535 || grid.z > 65535) {
    violation("a shape that cannot be launched: " + name);
    return fail(cudaErrorInvalidConfiguration);
  }
  return issue(stream_of(s), name, computed(name, args));
}
API cudaError_t cudaLaunchKernel(const void* f, dim3 grid, dim3 block, void** args, size_t,
                                 cudaStream_t s) {
  return run(f, grid, block, args, s);
}
API cudaError_t __cudaLaunchKernel(cudaKernel_t f, dim3 grid, dim3 block, void** args, size_t,
                                   cudaStream_t s) {
  return run(f, grid, block, args, s);
}
API cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* c, const void* f, void** args) {
  return run(f, c->gridDim, c->blockDim, args, c->stream);
}
API cudaError_t cudaLaunchHostFunc(cudaStream_t s, cudaHostFn_t function, void* data) {
  LOCK;
  return issue(stream_of(s), "host function", [=] { function(data); });
}
API cudaError_t cudaStreamAddCallback(cudaStream_t s, cudaStreamCallback_t function, void* data,
                                      unsigned) {
  LOCK;
  return issue(stream_of(s), "callback", [=] { function(s, cudaSuccess, data); });
}
API cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* a, const void*) {
  *a = {};
  a->maxThreadsPerBlock = 1024;
  a->numRegs = 32;
  a->binaryVersion = a->ptxVersion = 90;
  return cudaSuccess;
}
API cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int) { return cudaSuccess; }
API cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* n, const void*,
                                                                       int threads, size_t,
                                                                       unsigned) {
  *n = 2048 / std::max(threads, 32);
  return cudaSuccess;
}
API cudaError_t cudaGetSymbolAddress(void** p, const void* symbol) {
  *p = (void*)symbol;
  return cudaSuccess;
}

// ---------------------------------------------------------------------------------- the device

// With FAKE_GPU_MIG, the devices are instances of one GPU.
int gpu::pci_bus(int d) { return getenv("FAKE_GPU_MIG") ? 1 : 1 + physical(d); }

API cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int d) {  // an H200
  LOCK;
  *p = {};
  snprintf(p->name, sizeof p->name, "stand-in GPU");
  p->uuid.bytes[0] = 1 + physical(d);
  p->pciBusID = pci_bus(d);
  p->totalGlobalMem = memories()[d].total;
  p->major = 9;
  p->multiProcessorCount = 132;
  p->warpSize = 32;
  p->maxThreadsPerBlock = p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024;
  p->maxThreadsDim[2] = 64;
  p->maxGridSize[0] = INT32_MAX;
  p->maxGridSize[1] = p->maxGridSize[2] = 65535;
  p->maxThreadsPerMultiProcessor = 2048;
  p->maxBlocksPerMultiProcessor = 32;
  p->regsPerBlock = p->regsPerMultiprocessor = 65536;
  p->sharedMemPerBlock = 49152;
  p->sharedMemPerBlockOptin = 232448;
  p->sharedMemPerMultiprocessor = 233472;
  p->l2CacheSize = 60 << 20;
  p->unifiedAddressing = p->concurrentKernels = p->canMapHostMemory = 1;
  p->textureAlignment = 512;
  return cudaSuccess;
}
API cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int d) {
  cudaDeviceProp p;
  cudaGetDeviceProperties(&p, d);
  switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor: *value = p.major; break;
    case cudaDevAttrMultiProcessorCount: *value = p.multiProcessorCount; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = p.sharedMemPerBlock; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = p.sharedMemPerBlockOptin; break;
    case cudaDevAttrMaxThreadsPerBlock: *value = p.maxThreadsPerBlock; break;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *value = p.maxThreadsPerMultiProcessor; break;
    case cudaDevAttrWarpSize: *value = p.warpSize; break;
    default: *value = 0;
  }
  return cudaSuccess;
}
API cudaError_t cudaDeviceGetPCIBusId(char* text, int n, int d) {
  snprintf(text, n, "0000:%02x:00.0", pci_bus(d));
  return cudaSuccess;
}
API cudaError_t cudaDeviceCanAccessPeer(int* can, int, int) { *can = 0; return cudaSuccess; }
API cudaError_t cudaDriverGetVersion(int* v) {  // 13000 for CUDA 13.0
  const char* wanted = getenv("FAKE_GPU_DRIVER");
  *v = wanted ? atoi(wanted) : CUDART_VERSION;
  return cudaSuccess;
}
API cudaError_t cudaRuntimeGetVersion(int* v) { *v = CUDART_VERSION; return cudaSuccess; }
API const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "no error";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorNoDevice: return "no CUDA-capable device is detected";
    case cudaErrorInvalidDevice: return "invalid device ordinal";
    case cudaErrorInsufficientDriver:
      return "CUDA driver version is insufficient for CUDA runtime version";
    case cudaErrorStreamCaptureUnsupported:
      return "operation not permitted when stream is capturing";
    case cudaErrorStreamCaptureInvalidated:
      return "operation failed due to a previous error during capture";
    case cudaErrorStreamCaptureUnjoined: return "capturing stream has unjoined work";
    case cudaErrorStreamCaptureIsolation:
      return "dependency created on uncaptured work in another stream";
    case cudaErrorCapturedEvent:
      return "operation not permitted on an event last recorded in a capturing stream";
    default: return "an error of the stand-in GPU";
  }
}
API const char* cudaGetErrorName(cudaError_t error) { return cudaGetErrorString(error); }
