// cuBLAS and cuBLASLt: products that compute nothing. Handles are pointers and enumerations ints, as
// in their headers of version 13, which need headers that torch's wheels lack.
#include "gpu.h"

#include <cstring>

using namespace gpu;

struct Handle { cudaStream_t stream = nullptr; int math = 0, pointers = 0; };
using Pointer = const void*;

static const int NOT_INITIALIZED = 1, EXECUTION_FAILED = 13;

static int product(cudaStream_t s, const char* kind, int m, int n, int k, int batch = 1) {
  LOCK;
  std::string name = std::string(kind) + " " + std::to_string(m) + "x" + std::to_string(n) + "x" +
                     std::to_string(k);
  if (batch > 1) name += " times " + std::to_string(batch);
  return issue(stream_of(s), name) ? EXECUTION_FAILED : 0;
}

API int cublasCreate_v2(Handle** made) {
  LOCK;
  if (unsafe("cublasCreate")) return NOT_INITIALIZED;  // it allocates
  *made = new Handle;
  return 0;
}
API int cublasDestroy_v2(Handle*) { return 0; }
API int cublasSetStream_v2(Handle* h, cudaStream_t s) { h->stream = s; return 0; }
API int cublasSetWorkspace_v2(Handle*, void*, size_t) { return 0; }
API int cublasSetSmCountTarget(Handle*, int) { return 0; }
API int cublasSetMathMode(Handle* h, int mode) { h->math = mode; return 0; }
API int cublasGetMathMode(Handle* h, int* mode) { *mode = h->math; return 0; }
API int cublasSetPointerMode_v2(Handle* h, int mode) { h->pointers = mode; return 0; }
API int cublasGetPointerMode_v2(Handle* h, int* mode) { *mode = h->pointers; return 0; }

// (handle, transpose a, transpose b, m, n, k, ...): what follows has no effect here.
#define GEMM(name) \
  API int name(Handle* h, int, int, int m, int n, int k, ...) { \
    return product(h->stream, #name, m, n, k); \
  }
GEMM(cublasSgemm_v2)
GEMM(cublasDgemm_v2)
GEMM(cublasSgemmEx)
GEMM(cublasGemmEx)
API int cublasGemmStridedBatchedEx(Handle* h, int, int, int m, int n, int k, Pointer, Pointer, int,
                                   int, long long, Pointer, int, int, long long, Pointer, void*,
                                   int, int, long long, int batch, int, int) {
  return product(h->stream, "cublasGemmStridedBatchedEx", m, n, k, batch);
}
#define BATCHED(name) \
  API int name(Handle* h, int, int, int m, int n, int k, Pointer, Pointer, int, long long, Pointer, \
               int, long long, Pointer, void*, int, long long, int batch) { \
    return product(h->stream, #name, m, n, k, batch); \
  }
BATCHED(cublasSgemmStridedBatched)
BATCHED(cublasDgemmStridedBatched)
#define GEMV(name) \
  API int name(Handle* h, int, int m, int n, ...) { return product(h->stream, #name, m, n, 1); }
GEMV(cublasSgemv_v2)
GEMV(cublasDgemv_v2)
#define DOT(name) \
  API int name(Handle* h, int n, ...) { return product(h->stream, #name, n, 1, 1); }
DOT(cublasSdot_v2)
DOT(cublasDdot_v2)
DOT(cublasDotEx)

// ------------------------------------------------------------------------------------ cuBLASLt

struct Description { int is_transposed = 0, epilogue = 1; };
struct Layout { uint64_t rows, columns; int batch; };
struct Found {  // cublasLtMatmulHeuristicResult_t
  uint64_t algorithm[8];
  size_t workspace;
  int status;
  float waves;
  int reserved[4];
};
static const int TRANSPOSE_A = 3, EPILOGUE = 7, BATCH_COUNT = 5;  // attributes

API size_t cublasLtGetVersion() { return 130101; }
API int cublasLtCreate(Handle** made) { *made = new Handle; return 0; }
API int cublasLtMatmulDescCreate(Description** made, int, int) {
  *made = new Description;
  return 0;
}
API int cublasLtMatmulDescDestroy(Description* d) { delete d; return 0; }
API int cublasLtMatmulDescSetAttribute(Description* d, int which, const int* value, size_t) {
  if (which == TRANSPOSE_A) d->is_transposed = *value;
  if (which == EPILOGUE) d->epilogue = *value;
  return 0;
}
API int cublasLtMatrixLayoutCreate(Layout** made, int, uint64_t rows, uint64_t columns, int64_t) {
  *made = new Layout{rows, columns, 1};
  return 0;
}
API int cublasLtMatrixLayoutDestroy(Layout* layout) { delete layout; return 0; }
API int cublasLtMatrixLayoutSetAttribute(Layout* layout, int which, const int* value, size_t) {
  if (which == BATCH_COUNT) layout->batch = *value;
  return 0;
}
API int cublasLtMatmulPreferenceCreate(int** made) { *made = new int; return 0; }
API int cublasLtMatmulPreferenceDestroy(int* preference) { delete preference; return 0; }
API int cublasLtMatmulPreferenceSetAttribute(int*, int, Pointer, size_t) { return 0; }
API int cublasLtMatmulAlgoGetHeuristic(Handle*, Description*, Layout*, Layout*, Layout*, Layout*,
                                       int*, int, Found* found, int* n_found) {
  *found = {};
  *n_found = 1;
  return 0;
}
API int cublasLtMatmul(Handle*, Description* d, Pointer, Pointer, Layout* a, Pointer, Layout*,
                       Pointer, Pointer, Layout*, void*, Layout* out, Pointer, void*, size_t,
                       cudaStream_t s) {
  const char* kind = d->epilogue > 1 ? "cublasLtMatmul with an epilogue" : "cublasLtMatmul";
  int k = d->is_transposed ? a->rows : a->columns;
  return product(s, kind, out->rows, out->columns, k, out->batch);
}
