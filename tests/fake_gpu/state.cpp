// Streams, recordings and the report.
#include "gpu.h"

#include <cxxabi.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace gpu {

// Never freed, since libraries call CUDA while the process exits.
#define FOREVER(type, name) type& name() { static auto* it = new type; return *it; }
FOREVER(std::recursive_mutex, mutex)
FOREVER(Tally, tally)
FOREVER(std::set<Stream*>, streams)
FOREVER(std::set<Capture*>, captures)
FOREVER(Clock, host)
using Place = std::pair<const Stream*, uint64_t>;
static FOREVER(std::vector<Place>, collectives)

static thread_local cudaError_t last_error = cudaSuccess;
static thread_local cudaStreamCaptureMode thread_mode = cudaStreamCaptureModeGlobal;
static thread_local int current_device = 0;

static const std::vector<int>& visible() {
  static auto* devices = [] {
    const char* count = getenv("FAKE_GPU_COUNT");
    int n = count ? atoi(count) : 1;
    auto* found = new std::vector<int>;
    const char* wanted = getenv("CUDA_VISIBLE_DEVICES");
    if (!wanted) for (int i = 0; i < n; i++) found->push_back(i);
    for (const char* at = wanted; at && *at;) {  // a list of numbers; ends at the first wrong one
      char* end;
      long device = strtol(at, &end, 10);
      if (end == at || device < 0 || device >= n) break;
      found->push_back(device);
      at = *end ? end + 1 : end;
    }
    return found;
  }();
  return *devices;
}

int thread_id() { return syscall(SYS_gettid); }
int physical(int device) { return visible()[device]; }

Stream* stream_of(cudaStream_t stream) {
  if (stream && stream != cudaStreamLegacy && stream != cudaStreamPerThread) return (Stream*)stream;
  static auto* defaults = new std::map<int, Stream*>;
  Stream*& found = (*defaults)[current_device];
  if (!found) {
    found = new Stream;
    found->device = current_device;
    streams().insert(found);
  }
  return found;
}

cudaError_t fail(cudaError_t error) { return last_error = error; }

void violation(const std::string& what) {
  tally().violations.push_back(what);
  if (!getenv("FAKE_GPU_QUIET")) fprintf(stderr, "stand-in GPU: %s\n", what.c_str());
}

void spoil(Capture* capture, const std::string& why) {
  capture->is_broken = true;
  violation("recording spoilt: " + why);
}

void see(Clock& to, const Clock& from) {
  for (auto& [stream, n] : from) to[stream] = std::max(to[stream], n);
}

void wait_for(Stream* stream, const char* how) {
  tally().waits[how]++;
  see(host(), stream->seen);
}

cudaError_t unsafe(const std::string& name) {
  if (thread_mode == cudaStreamCaptureModeRelaxed) return cudaSuccess;
  for (Capture* capture : captures()) {
    bool is_mine = capture->thread == thread_id();
    bool is_global =
        thread_mode == cudaStreamCaptureModeGlobal && capture->mode == cudaStreamCaptureModeGlobal;
    if (is_mine ? capture->mode == cudaStreamCaptureModeRelaxed : !is_global) continue;
    spoil(capture, name + " by " + (is_mine ? "the recording" : "another") + " thread");
    return fail(cudaErrorStreamCaptureUnsupported);
  }
  return cudaSuccess;
}

static void advance(Stream* stream) { stream->seen[stream] = ++stream->issued; }

cudaError_t issue(Stream* stream, const std::string& name, Work work) {
  if (Capture* capture = stream->capture) {
    if (capture->is_broken) return fail(cudaErrorStreamCaptureInvalidated);
    capture->graph->nodes.push_back(work);
    tally().nodes[name]++;
    advance(stream);
    return cudaSuccess;
  }
  see(stream->seen, host());
  for (auto& [other, at] : std::vector<Place>(collectives())) {
    if (other->device != stream->device || stream->seen[other] >= at) continue;
    violation(name + " is not ordered after a collective on another stream");
    auto& all = collectives();
    all.erase(std::remove(all.begin(), all.end(), Place(other, at)), all.end());
  }
  advance(stream);
  tally().launches[name]++;
  if (work) work();
  return cudaSuccess;
}

cudaError_t issue_collective(Stream* stream, const std::string& name) {
  if (stream->capture) {
    spoil(stream->capture, name + " is not for recordings here");
    return fail(cudaErrorStreamCaptureUnsupported);
  }
  see(stream->seen, host());
  for (Stream* other : streams())
    if (other != stream && !other->capture && other->device == stream->device &&
        stream->seen[other] < other->issued)
      violation(name + " is not ordered after work on another stream");
  auto error = issue(stream, name);
  auto& all = collectives();  // an earlier one of this stream comes before this one
  all.erase(std::remove_if(all.begin(), all.end(), [&](Place& p) { return p.first == stream; }),
            all.end());
  all.emplace_back(stream, stream->issued);
  return error;
}

}  // namespace gpu

using namespace gpu;

API cudaError_t cudaGetDeviceCount(int* n) {
  int driver;
  cudaDriverGetVersion(&driver);
  *n = 0;
  if (driver / 1000 < CUDART_VERSION / 1000) return fail(cudaErrorInsufficientDriver);
  *n = visible().size();
  return *n ? cudaSuccess : fail(cudaErrorNoDevice);
}
API cudaError_t cudaGetDevice(int* device) { *device = current_device; return cudaSuccess; }
API cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= (int)visible().size()) return fail(cudaErrorInvalidDevice);
  current_device = device;
  return cudaSuccess;
}
API cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }
API cudaError_t cudaPeekAtLastError() { return last_error; }

// ------------------------------------------------------------------------------------- streams

static cudaError_t make(cudaStream_t* made, unsigned flags, int priority) {
  LOCK;
  auto* stream = new Stream;
  stream->device = current_device;
  stream->flags = flags;
  stream->priority = priority;
  streams().insert(stream);
  *made = (cudaStream_t)stream;
  return cudaSuccess;
}
API cudaError_t cudaStreamCreate(cudaStream_t* s) { return make(s, 0, 0); }
API cudaError_t cudaStreamCreateWithFlags(cudaStream_t* s, unsigned f) { return make(s, f, 0); }
API cudaError_t cudaStreamCreateWithPriority(cudaStream_t* s, unsigned f, int p) {
  return make(s, f, p);
}
API cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }  // events may refer to it
API cudaError_t cudaStreamGetPriority(cudaStream_t s, int* priority) {
  *priority = stream_of(s)->priority;
  return cudaSuccess;
}
API cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  if (least) *least = 0;
  if (greatest) *greatest = -5;
  return cudaSuccess;
}

static cudaError_t look(cudaStream_t s, const char* name) {
  Stream* stream = stream_of(s);
  if (!stream->capture) return cudaSuccess;
  spoil(stream->capture, std::string(name) + " of a recording stream");
  return fail(cudaErrorStreamCaptureUnsupported);
}
API cudaError_t cudaStreamSynchronize(cudaStream_t s) {
  LOCK;
  if (auto error = look(s, "cudaStreamSynchronize")) return error;
  wait_for(stream_of(s), "cudaStreamSynchronize");
  return cudaSuccess;
}
API cudaError_t cudaStreamQuery(cudaStream_t s) { LOCK; return look(s, "cudaStreamQuery"); }
API cudaError_t cudaDeviceSynchronize() {
  LOCK;
  for (Capture* capture : captures()) {
    spoil(capture, "cudaDeviceSynchronize");
    return fail(cudaErrorStreamCaptureUnsupported);
  }
  tally().waits["cudaDeviceSynchronize"]++;
  for (Stream* stream : streams()) see(host(), stream->seen);
  return cudaSuccess;
}

// -------------------------------------------------------------------------------------- events

API cudaError_t cudaEventCreateWithFlags(cudaEvent_t* e, unsigned) {
  *e = (cudaEvent_t) new Event;
  return cudaSuccess;
}
API cudaError_t cudaEventCreate(cudaEvent_t* e) { return cudaEventCreateWithFlags(e, 0); }
API cudaError_t cudaEventDestroy(cudaEvent_t e) { delete (Event*)e; return cudaSuccess; }
API cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t, cudaEvent_t) {
  *ms = 1;
  return cudaSuccess;
}
API cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s) {
  LOCK;
  Stream* stream = stream_of(s);
  if (!stream->capture) see(stream->seen, host());
  *(Event*)e = {stream, stream->capture, stream->seen};
  return cudaSuccess;
}
API cudaError_t cudaEventRecordWithFlags(cudaEvent_t e, cudaStream_t s, unsigned) {
  return cudaEventRecord(e, s);
}
API cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned) {
  LOCK;
  Stream* stream = stream_of(s);
  auto* event = (Event*)e;
  if (!event->stream) return cudaSuccess;
  if (event->capture && !captures().count(event->capture))
    return fail(cudaErrorStreamCaptureInvalidated);
  if (stream->capture && stream->capture != event->capture) {
    spoil(stream->capture, "a wait for work that is not recorded");
    return fail(cudaErrorStreamCaptureIsolation);
  }
  if (event->capture && !stream->capture) {
    if (s == nullptr) {
      spoil(event->capture, "the default stream waits for recorded work");
      return fail(cudaErrorStreamCaptureImplicit);
    }
    stream->capture = event->capture;
    event->capture->joined[stream] = {stream->issued, stream->seen};
  }
  see(stream->seen, event->seen);
  return cudaSuccess;
}

static cudaError_t recorded(Event* event, const char* name) {
  if (!event->capture) return cudaSuccess;
  if (captures().count(event->capture))
    spoil(event->capture, std::string(name) + " of a recorded event");
  return fail(cudaErrorCapturedEvent);
}
API cudaError_t cudaEventSynchronize(cudaEvent_t e) {
  LOCK;
  if (auto error = recorded((Event*)e, "cudaEventSynchronize")) return error;
  tally().waits["cudaEventSynchronize"]++;
  see(host(), ((Event*)e)->seen);
  return cudaSuccess;
}
API cudaError_t cudaEventQuery(cudaEvent_t e) {
  LOCK;
  auto* event = (Event*)e;
  if (auto error = recorded(event, "cudaEventQuery")) return error;
  if (auto error = unsafe("cudaEventQuery")) return error;
  // Work takes some time: the third look, or any wait of the host, finds it done.
  bool is_done = !event->stream || ++event->n_queries > 2;
  for (auto& [stream, n] : event->seen) is_done = is_done || host()[stream] >= n;
  if (!is_done) return cudaErrorNotReady;
  see(host(), event->seen);
  return cudaSuccess;
}

// ---------------------------------------------------------------------------------- recordings

API cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  std::swap(*mode, thread_mode);
  return cudaSuccess;
}
API cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode mode) {
  LOCK;
  Stream* stream = stream_of(s);
  if (!s || stream->capture) return fail(cudaErrorStreamCaptureUnsupported);
  auto* capture = new Capture{stream, thread_id(), mode, new Graph, {}, false};
  capture->joined[stream] = {stream->issued, stream->seen};
  stream->capture = capture;
  captures().insert(capture);
  return cudaSuccess;
}
API cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t* graph) {
  LOCK;
  Stream* stream = stream_of(s);
  Capture* capture = stream->capture;
  *graph = nullptr;
  if (!capture) return fail(cudaErrorIllegalState);
  if (capture->origin != stream) return fail(cudaErrorStreamCaptureUnmatched);
  if (capture->thread != thread_id() && capture->mode != cudaStreamCaptureModeRelaxed)
    return fail(cudaErrorStreamCaptureWrongThread);
  bool is_joined = true;
  for (auto& [other, before] : capture->joined)
    if (other->issued > before.issued && stream->seen[other] < other->issued) is_joined = false;
  for (auto& [other, before] : capture->joined) {
    other->issued = before.issued;
    other->seen = before.seen;
    other->capture = nullptr;
  }
  captures().erase(capture);  // not deleted, since events may refer to it
  if (capture->is_broken) return fail(cudaErrorStreamCaptureInvalidated);
  if (!is_joined) {
    violation("recording spoilt: a stream was not joined at its end");
    return fail(cudaErrorStreamCaptureUnjoined);
  }
  *graph = (cudaGraph_t)capture->graph;
  return cudaSuccess;
}
API cudaError_t cudaStreamIsCapturing(cudaStream_t s, cudaStreamCaptureStatus* status) {
  LOCK;
  Capture* capture = stream_of(s)->capture;
  *status = !capture              ? cudaStreamCaptureStatusNone
            : capture->is_broken ? cudaStreamCaptureStatusInvalidated
                                 : cudaStreamCaptureStatusActive;
  return cudaSuccess;
}
API cudaError_t cudaStreamGetCaptureInfo(cudaStream_t s, cudaStreamCaptureStatus* status,
                                         unsigned long long* id, cudaGraph_t* graph,
                                         const cudaGraphNode_t** before,
                                         const cudaGraphEdgeData** edges, size_t* n_before) {
  LOCK;
  Capture* capture = stream_of(s)->capture;
  cudaStreamIsCapturing(s, status);
  if (id) *id = (uintptr_t)capture;
  if (graph) *graph = capture ? (cudaGraph_t)capture->graph : nullptr;
  if (before) *before = nullptr;
  if (edges) *edges = nullptr;
  if (n_before) *n_before = 0;
  return cudaSuccess;
}
API cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* made, cudaGraph_t graph,
                                              unsigned long long) {
  *made = (cudaGraphExec_t) new Graph(*(Graph*)graph);
  return cudaSuccess;
}
API cudaError_t cudaGraphLaunch(cudaGraphExec_t made, cudaStream_t s) {
  LOCK;
  auto* graph = (Graph*)made;
  return issue(stream_of(s), "graph", [=] {
    for (Work& work : graph->nodes) if (work) work();
  });
}
API cudaError_t cudaGraphDestroy(cudaGraph_t graph) { delete (Graph*)graph; return cudaSuccess; }
API cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) {
  delete (Graph*)graph;
  return cudaSuccess;
}
API cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t*, size_t* n) {
  *n = ((Graph*)graph)->nodes.size();
  return cudaSuccess;
}

// ----------------------------------------------------------------------- what a test asks for

static std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (char c : text) (c == '"' || c == '\\') ? out += {'\\', c} : out += c < ' ' ? ' ' : c;
  return out + '"';
}
static std::string readable(const std::string& name) {
  int status;
  char* found = abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status);
  std::string text = found ? found : name;
  free(found);
  return text;
}

// What happened since the last call, as JSON.
API const char* fake_gpu_report() {
  LOCK;
  static auto* text = new std::string;
  *text = "{";
  Tally& t = tally();
  for (auto& [name, counts] : {std::pair{"launches", &t.launches}, {"nodes", &t.nodes},
                               {"waits", &t.waits}, {"copies", &t.copies}, {"calls", &t.calls}}) {
    *text += quoted(name) + ": {";
    for (auto& [what, n] : *counts)
      *text += quoted(readable(what)) + ": " + std::to_string(n) + ", ";
    if (!counts->empty()) text->resize(text->size() - 2);
    *text += "}, ";
  }
  *text += "\"violations\": [";
  for (auto& what : t.violations) *text += quoted(what) + ", ";
  if (!t.violations.empty()) text->resize(text->size() - 2);
  *text += "]}";
  t = Tally();
  return text->c_str();
}
