// The state of a stand-in for GPUs: memory, streams, recordings (captures), and what happened.
//
// Work is done when it is issued. Whether a real GPU would have had to do it in this order is
// followed by vector clocks: `seen` of a stream holds how much of each other stream comes before.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#define API extern "C" __attribute__((visibility("default")))

namespace gpu {

struct Stream;
using Clock = std::map<const Stream*, uint64_t>;
using Work = std::function<void()>;

struct Graph {
  std::vector<Work> nodes;
};

struct Joined {  // a stream when it joined a recording, to be as it was when the recording ends
  uint64_t issued;
  Clock seen;
};

struct Capture {
  Stream* origin;
  int thread;
  cudaStreamCaptureMode mode;
  Graph* graph;
  std::map<Stream*, Joined> joined;
  bool is_broken = false;
};

struct Stream {
  int device = 0, priority = 0;
  unsigned flags = 0;
  uint64_t issued = 0;
  Clock seen;
  Capture* capture = nullptr;
};

struct Event {
  Stream* stream = nullptr;  // null until it is recorded
  Capture* capture = nullptr;
  Clock seen;
  int n_queries = 0;
};

struct Tally {
  std::map<std::string, uint64_t> launches, nodes, waits, copies, calls;
  std::vector<std::string> violations;
};

std::recursive_mutex& mutex();
#define LOCK std::lock_guard<std::recursive_mutex> lock_(gpu::mutex())

Tally& tally();
std::set<Stream*>& streams();
std::set<Capture*>& captures();
Clock& host();  // what the host knows to be done

int thread_id();
int physical(int device);  // the number of a visible device among all devices of the machine
int pci_bus(int device);
Stream* stream_of(cudaStream_t);
cudaError_t fail(cudaError_t);
void violation(const std::string&);
void spoil(Capture*, const std::string& why);
void see(Clock& to, const Clock& from);
void wait_for(Stream*, const char* how);  // the host waits for all work of a stream
// An error if a recording forbids this thread to call `name`, as the documentation of
// cudaThreadExchangeStreamCaptureMode says; the recording is then spoilt.
cudaError_t unsafe(const std::string& name);
// Work on a stream: done, or recorded.
cudaError_t issue(Stream*, const std::string& name, Work = {});
// A collective: complains of work of other streams that is ordered neither before nor after it.
cudaError_t issue_collective(Stream*, const std::string& name);
void* host_side(const void*);  // where the host reaches memory of the device; other memory as it is

}  // namespace gpu
