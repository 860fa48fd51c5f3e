// NCCL over shared memory, between the processes of one machine. Sums are real. It refuses two
// ranks on one GPU, as NCCL does, and stops where ranks do not do the same. Enumerations are those
// of nccl.h 2.29.
#include "gpu.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>

using namespace gpu;

enum Type { INT8, UINT8, INT32, UINT32, INT64, UINT64, FLOAT16, FLOAT32, FLOAT64, BFLOAT16 };
enum Reduction { SUM, PRODUCT, MAX, MIN };
enum Result { SUCCESS, CUDA_ERROR, SYSTEM_ERROR, INTERNAL_ERROR, INVALID_ARGUMENT, INVALID_USAGE };
struct Id { char bytes[128]; };

static const size_t SLOT = 64 << 20;  // bytes that a rank can send at once
static const int PATIENCE_S = 300, MAX_RANKS = 16;

struct Shared {
  std::atomic<int> n_arrived, round;
  char what[MAX_RANKS][128];  // what each rank does
};
struct Comm {
  int rank, size, device;
  Shared* shared;
  char* slots;
  char* slot(int rank) { return slots + rank * SLOT; }
};

static void stop(const std::string& why) {
  fprintf(stderr, "stand-in NCCL: %s\n", why.c_str());
  abort();
}

static void meet(Comm* c) {
  int round = c->shared->round;
  time_t began = time(nullptr);
  if (++c->shared->n_arrived == c->size) {
    c->shared->n_arrived = 0;
    c->shared->round++;
  }
  while (c->shared->round == round) {
    usleep(50);
    if (time(nullptr) - began > PATIENCE_S) stop("the other ranks do not come");
  }
}

static void say(Comm* c, const std::string& what) {
  snprintf(c->shared->what[c->rank], 128, "%s", what.c_str());
  meet(c);
}

static void agree(Comm* c, const std::string& what) {
  say(c, what);
  for (int r = 0; r < c->size; r++)
    if (what != c->shared->what[r]) stop("ranks differ: " + what + " and " + c->shared->what[r]);
}

static size_t width(int type) {
  switch (type) {
    case INT8: case UINT8: return 1;
    case FLOAT16: case BFLOAT16: return 2;
    case INT32: case UINT32: case FLOAT32: return 4;
    default: return 8;
  }
}

struct Bfloat16 {
  uint16_t bits;
  operator float() const {
    uint32_t wide = (uint32_t)bits << 16;
    float x;
    memcpy(&x, &wide, 4);
    return x;
  }
  Bfloat16& operator=(float x) {  // to nearest, ties to even
    uint32_t wide;
    memcpy(&wide, &x, 4);
    bits = (wide + 0x7fff + (wide >> 16 & 1)) >> 16;
    return *this;
  }
};

template <class T>
static void reduce(void* to, const void* from, size_t n, int how) {
  T* a = (T*)to;
  auto* b = (const T*)from;
  for (size_t i = 0; i < n; i++) {
    if (how == SUM) a[i] = a[i] + b[i];
    else if (how == PRODUCT) a[i] = a[i] * b[i];
    else if (how == MAX) a[i] = b[i] > a[i] ? b[i] : a[i];
    else if (how == MIN) a[i] = b[i] < a[i] ? b[i] : a[i];
    else stop("no such reduction");
  }
}
static void reduce(void* to, const void* from, size_t n, int type, int how) {
  switch (type) {
    case INT8: return reduce<int8_t>(to, from, n, how);
    case UINT8: return reduce<uint8_t>(to, from, n, how);
    case INT32: return reduce<int32_t>(to, from, n, how);
    case INT64: return reduce<int64_t>(to, from, n, how);
    case FLOAT32: return reduce<float>(to, from, n, how);
    case FLOAT64: return reduce<double>(to, from, n, how);
    case BFLOAT16: return reduce<Bfloat16>(to, from, n, how);
    default: stop("no reduction of type " + std::to_string(type));
  }
}

enum Kind { ALL_REDUCE, BROADCAST, ALL_GATHER, ALL_TO_ALL };
static const char* KINDS[] = {"ncclAllReduce", "ncclBroadcast", "ncclAllGather", "ncclAlltoAll"};

static int collective(Kind kind, const void* from, void* to, size_t n, int type, int how, Comm* c,
                      cudaStream_t s) {  // `how` is the reduction, or the root of a broadcast
  {
    LOCK;
    if (issue_collective(stream_of(s), KINDS[kind])) return CUDA_ERROR;
  }
  size_t bytes = n * width(type), sent = kind == ALL_TO_ALL ? bytes * c->size : bytes;
  if (sent > SLOT) stop("too many bytes at once");
  char what[128];
  snprintf(what, sizeof what, "%s of %zu, type %d, %d", KINDS[kind], n, type, how);
  agree(c, what);
  if (kind != BROADCAST || c->rank == how) memcpy(c->slot(c->rank), host_side(from), sent);
  meet(c);
  auto* out = (char*)host_side(to);
  if (kind == BROADCAST) memcpy(out, c->slot(how), bytes);
  if (kind == ALL_REDUCE) memcpy(out, c->slot(0), bytes);
  for (int r = 0; r < c->size; r++) {
    if (kind == ALL_REDUCE && r) reduce(out, c->slot(r), n, type, how);
    if (kind == ALL_GATHER) memcpy(out + r * bytes, c->slot(r), bytes);
    if (kind == ALL_TO_ALL) memcpy(out + r * bytes, c->slot(r) + c->rank * bytes, bytes);
  }
  meet(c);  // before a slot is written again
  return SUCCESS;
}

API int ncclAllReduce(const void* from, void* to, size_t n, int type, int how, Comm* c,
                      cudaStream_t s) {
  return collective(ALL_REDUCE, from, to, n, type, how, c, s);
}
API int ncclBroadcast(const void* from, void* to, size_t n, int type, int root, Comm* c,
                      cudaStream_t s) {
  return collective(BROADCAST, from, to, n, type, root, c, s);
}
API int ncclBcast(void* p, size_t n, int type, int root, Comm* c, cudaStream_t s) {
  return collective(BROADCAST, p, p, n, type, root, c, s);
}
API int ncclAllGather(const void* from, void* to, size_t n, int type, Comm* c, cudaStream_t s) {
  return collective(ALL_GATHER, from, to, n, type, 0, c, s);
}
API int ncclAlltoAll(const void* from, void* to, size_t n, int type, Comm* c, cudaStream_t s) {
  return collective(ALL_TO_ALL, from, to, n, type, 0, c, s);
}

API int ncclGetVersion(int* version) { *version = 22907; return SUCCESS; }
API int ncclGroupStart() { return SUCCESS; }  // each collective of a group is done at once
API int ncclGroupEnd() { return SUCCESS; }
API int ncclGetUniqueId(Id* id) {
  *id = {};
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  snprintf(id->bytes, sizeof id->bytes, "/fake_nccl-%d-%ld%09ld", getpid(), now.tv_sec, now.tv_nsec);
  return SUCCESS;
}
API int ncclCommInitRank(Comm** made, int size, Id id, int rank) {
  if (size > MAX_RANKS) return INVALID_ARGUMENT;
  size_t head = (sizeof(Shared) + 4095) / 4096 * 4096, bytes = head + SLOT * size;
  int file = shm_open(id.bytes, O_CREAT | O_RDWR, 0600);
  if (file < 0 || ftruncate(file, bytes)) return SYSTEM_ERROR;
  void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, file, 0);
  close(file);
  if (at == MAP_FAILED) return SYSTEM_ERROR;
  auto* c = new Comm{rank, size, 0, (Shared*)at, (char*)at + head};
  cudaGetDevice(&c->device);
  std::string mine = "on GPU " + std::to_string(pci_bus(c->device));
  say(c, mine);
  bool is_shared = false;
  for (int r = 0; r < size; r++) is_shared |= r != rank && mine == c->shared->what[r];
  meet(c);
  if (!rank) shm_unlink(id.bytes);
  if (is_shared) return INVALID_USAGE;  // NCCL: "Duplicate GPU detected"
  *made = c;
  return SUCCESS;
}
API int ncclCommInitRankConfig(Comm** made, int size, Id id, int rank, void*) {
  return ncclCommInitRank(made, size, id, rank);
}
API int ncclCommInitRankScalable(Comm** made, int size, int rank, int, Id* id, void*) {
  return ncclCommInitRank(made, size, *id, rank);
}
API int ncclCommDestroy(Comm*) { return SUCCESS; }
API int ncclCommFinalize(Comm*) { return SUCCESS; }
API int ncclCommAbort(Comm*) { return SUCCESS; }
API int ncclCommGetAsyncError(Comm*, int* error) { *error = SUCCESS; return SUCCESS; }
API int ncclCommCount(Comm* c, int* n) { *n = c->size; return SUCCESS; }
API int ncclCommUserRank(Comm* c, int* n) { *n = c->rank; return SUCCESS; }
API int ncclCommRegister(Comm*, void*, size_t, void** handle) { *handle = nullptr; return SUCCESS; }
API int ncclCommDeregister(Comm*, void*) { return SUCCESS; }
API const char* ncclGetErrorString(int error) {
  switch (error) {
    case SUCCESS: return "no error";
    case INVALID_USAGE: return "invalid usage: two ranks on one GPU";
    default: return "an error of the stand-in NCCL";
  }
}
API const char* ncclGetLastError(Comm*) { return ""; }
