#include "bench/model/kernel_times.h"

#include <cupti.h>
#include <cxxabi.h>
#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <string_view>

namespace lorikeet::bench {
namespace {

constexpr size_t kBufferBytes = 4 << 20;

struct Interval {
  uint64_t begin, end;  // ns
  std::string name;
};

// CUPTI's callbacks take no argument of their own. Guarded by `mutex`, since they come from a thread of CUPTI.
struct Records {
  std::mutex mutex;
  bool wanted = false;
  std::vector<Interval> intervals;
};
Records records;

struct Library {
  decltype(&cuptiActivityEnable) enable = nullptr;
  decltype(&cuptiActivityRegisterCallbacks) register_callbacks = nullptr;
  decltype(&cuptiActivityFlushAll) flush = nullptr;
  decltype(&cuptiActivityGetNextRecord) next_record = nullptr;
};
Library library;

std::string short_name(const char* mangled) {
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> demangled(abi::__cxa_demangle(mangled, nullptr, nullptr, &status), free);
  std::string name = status == 0 ? demangled.get() : mangled;
  constexpr std::string_view kUnnamed = "(anonymous namespace)::";
  for (size_t at = name.find(kUnnamed); at != std::string::npos; at = name.find(kUnnamed)) {
    name.erase(at, kUnnamed.size());
  }
  const size_t end = name.find_first_of("<(");
  if (end != std::string::npos) name.resize(end);
  const size_t last = name.find_last_of(": ");
  return last == std::string::npos ? name : name.substr(last + 1);
}

void CUPTIAPI buffer_requested(uint8_t** buffer, size_t* size, size_t* most_records) {
  *buffer = static_cast<uint8_t*>(aligned_alloc(8, kBufferBytes));
  *size = kBufferBytes;
  *most_records = 0;  // as many as fit
}

void CUPTIAPI buffer_completed(CUcontext, uint32_t, uint8_t* buffer, size_t, size_t valid) {
  const std::lock_guard lock(records.mutex);
  CUpti_Activity* record = nullptr;
  while (records.wanted && library.next_record(buffer, valid, &record) == CUPTI_SUCCESS) {
    if (record->kind == CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) {
      const auto* kernel = reinterpret_cast<const CUpti_ActivityKernel10*>(record);
      records.intervals.push_back({kernel->start, kernel->end, short_name(kernel->name)});
    } else if (record->kind == CUPTI_ACTIVITY_KIND_MEMCPY) {
      const auto* copy = reinterpret_cast<const CUpti_ActivityMemcpy6*>(record);
      records.intervals.push_back({copy->start, copy->end, "copy"});
    } else if (record->kind == CUPTI_ACTIVITY_KIND_MEMSET) {
      const auto* fill = reinterpret_cast<const CUpti_ActivityMemset4*>(record);
      records.intervals.push_back({fill->start, fill->end, "fill"});
    }
  }
  free(buffer);
}

}  // namespace

Result<KernelTimes> KernelTimes::make() {
  void* handle = nullptr;
  for (const char* name : {"libcupti.so.13", "libcupti.so.12", "libcupti.so"}) {
    if (handle == nullptr) handle = dlopen(name, RTLD_NOW);
  }
  if (handle == nullptr) return fail("libcupti.so is not found: name its folder in LD_LIBRARY_PATH");
  library.enable = reinterpret_cast<decltype(library.enable)>(dlsym(handle, "cuptiActivityEnable"));
  library.register_callbacks =
      reinterpret_cast<decltype(library.register_callbacks)>(dlsym(handle, "cuptiActivityRegisterCallbacks"));
  library.flush = reinterpret_cast<decltype(library.flush)>(dlsym(handle, "cuptiActivityFlushAll"));
  library.next_record = reinterpret_cast<decltype(library.next_record)>(dlsym(handle, "cuptiActivityGetNextRecord"));
  if (library.enable == nullptr || library.register_callbacks == nullptr || library.flush == nullptr ||
      library.next_record == nullptr) {
    return fail("libcupti.so lacks the activity interface");
  }
  CUptiResult status = library.register_callbacks(buffer_requested, buffer_completed);
  for (const CUpti_ActivityKind kind :
       {CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL, CUPTI_ACTIVITY_KIND_MEMCPY, CUPTI_ACTIVITY_KIND_MEMSET}) {
    if (status == CUPTI_SUCCESS) status = library.enable(kind);
  }
  if (status != CUPTI_SUCCESS) return fail("CUPTI refuses to trace: error {}", static_cast<int>(status));
  return KernelTimes();
}

void KernelTimes::begin() {
  library.flush(CUPTI_ACTIVITY_FLAG_FLUSH_FORCED);
  const std::lock_guard lock(records.mutex);
  records.wanted = true;
}

std::vector<KernelTime> KernelTimes::end() {
  library.flush(CUPTI_ACTIVITY_FLAG_FLUSH_FORCED);
  std::vector<Interval> intervals;
  {
    const std::lock_guard lock(records.mutex);
    intervals.swap(records.intervals);
    records.wanted = false;
  }
  std::sort(intervals.begin(), intervals.end(), [](const Interval& a, const Interval& b) { return a.end < b.end; });
  std::map<std::string, KernelTime> by_name;
  uint64_t latest = intervals.empty() ? 0 : intervals.front().begin;
  for (const Interval& interval : intervals) {
    KernelTime& time = by_name[interval.name];
    time.name = interval.name;
    ++time.count;
    time.us += 1e-3 * static_cast<double>(interval.end - interval.begin);
    time.added_us += 1e-3 * static_cast<double>(interval.end - latest);
    latest = interval.end;
  }
  std::vector<KernelTime> times;
  for (const auto& [name, time] : by_name) times.push_back(time);
  std::sort(times.begin(), times.end(),
            [](const KernelTime& a, const KernelTime& b) { return a.added_us > b.added_us; });
  return times;
}

}  // namespace lorikeet::bench
