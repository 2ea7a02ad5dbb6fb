#include "actors/head/staging_memory.h"

#include <glog/logging.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <new>
#include <vector>

#include "actors/wire/limits.h"
#include "kernels/base/rounding.h"
#include "model/checkpoint/in_parallel.h"

namespace lorikeet::actors {
namespace {

constexpr std::chrono::seconds kPatience{1};  // for a chunk to be populated

uint64_t page_bytes() {
  static const auto bytes = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  return bytes;
}

// Descriptors are numbered from the lowest free number, so refusing high ones bounds how many adapters have.
bool leaves_descriptors(const Descriptor& made) {
  rlimit limit{};
  return getrlimit(RLIMIT_NOFILE, &limit) == 0 &&
         static_cast<rlim_t>(made.get()) < limit.rlim_cur / kDescriptorsPerStagedAdapter;
}

}  // namespace

std::optional<StagingMemory> StagingMemory::make(uint64_t bytes) {
  auto made = kernels::ResidentMemory::make("lorikeet-adapter");
  if (!made || !leaves_descriptors(made->descriptor()) ||
      ftruncate(made->descriptor().get(), static_cast<off_t>(bytes)) != 0)
    return std::nullopt;
  void* const at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, made->descriptor().get(), 0);
  if (at == MAP_FAILED) return std::nullopt;
  madvise(at, bytes, MADV_HUGEPAGE);  // where the system gives large pages to such memory, there are fewer to fill
  return StagingMemory(*std::move(made), static_cast<uint8_t*>(at), bytes);
}

StagingMemory::StagingMemory(kernels::ResidentMemory region, uint8_t* data, uint64_t bytes)
    : region_(std::move(region)),
      data_(data),
      bytes_(bytes),
      chunks_(std::make_unique<Chunk[]>(kernels::divide_up(bytes, kChunk))) {}

uint64_t StagingMemory::chunks() const {
  return kernels::divide_up(bytes_, kChunk);
}

Result<void> StagingMemory::populate(uint64_t offset, uint64_t bytes) const {
  bool there = true;
  for (uint64_t chunk = offset / kChunk; chunk * kChunk < offset + bytes; ++chunk)
    there = there && chunks_[chunk].populated;
  if (there) return {};
  const uint64_t first = offset / page_bytes() * page_bytes();
  const uint64_t last = std::min(bytes_, kernels::round_up(offset + bytes, page_bytes()));
  return kernels::populate({data_ + first, last - first}, region_.descriptor(), first);
}

Result<void> StagingMemory::populate_all(int threads, const std::atomic<bool>* stops) {
  std::mutex mutex;
  Result<void> filled;
  model::in_parallel(chunks(), threads, [&](size_t chunk) {
    if (stops != nullptr && *stops) return;
    auto ok = populate(chunk * kChunk, chunk_bytes(chunk));
    if (ok) chunks_[chunk].populated = true;
    const std::lock_guard lock(mutex);
    if (!ok && filled) filled = std::move(ok);
  });
  return filled;
}

void StagingMemory::written(uint64_t offset, uint64_t bytes) const {
  for (uint64_t chunk = offset / kChunk; chunk * kChunk < offset + bytes; ++chunk) {
    const uint64_t begin = std::max(offset, chunk * kChunk);
    const uint64_t part = std::min(offset + bytes, chunk * kChunk + chunk_bytes(chunk)) - begin;
    const uint64_t most = chunk_bytes(chunk) / 8 * 7;  // between matrices lies what nobody writes
    const uint64_t before = chunks_[chunk].written.fetch_add(part);
    if (before < most && before + part >= most) leave(chunk);
  }
}

uint64_t StagingMemory::chunk_bytes(uint64_t chunk) const {
  return std::min(kChunk, bytes_ - chunk * kChunk);
}

void StagingMemory::leave(uint64_t chunk) const {
  madvise(data_ + chunk * kChunk, chunk_bytes(chunk), MADV_DONTNEED);  // the memory keeps them
  chunks_[chunk].left = true;
}

bool StagingMemory::shorten(uint64_t bytes) {
  const uint64_t kept = kernels::round_up(bytes, page_bytes());
  if (kept < bytes_ && munmap(data_ + kept, bytes_ - kept) != 0) return false;
  bytes_ = std::min(bytes_, kept);
  if (ftruncate(region_.descriptor().get(), static_cast<off_t>(bytes)) != 0) return false;
  bytes_ = bytes;
  return true;
}

Result<kernels::ResidentMemory> StagingMemory::seal(int threads) && {
  unmap(threads);  // what is mapped for writing cannot be sealed
  if (auto ok = region_.seal(); !ok) return tl::unexpected(ok.error());
  return std::move(region_);
}

// Frees page by page, which takes as long as packing a good part of them. Several threads can free pages at once, but not
// unmap.
void StagingMemory::unmap(int threads) {
  if (data_ == nullptr) return;
  std::vector<uint64_t> here;
  for (uint64_t chunk = 0; chunk < chunks(); ++chunk) {
    if (!chunks_[chunk].left) here.push_back(chunk);
  }
  if (threads > 1) model::in_parallel(here.size(), threads, [&](size_t i) { leave(here[i]); });
  CHECK_EQ(munmap(std::exchange(data_, nullptr), bytes_), 0);
}

std::optional<StagingMemory> SpareStagingMemory::take(uint64_t bytes) {
  std::optional<StagingMemory> taken;
  {
    std::unique_lock lock(mutex_);
    wanted_ = true;
    prepared_.wait_for(lock, kPatience, [this] { return !preparing_; });
    taken.swap(memory_);
  }
  if (taken && (taken->bytes() < bytes || !taken->shorten(bytes))) taken.reset();
  return taken;
}

void SpareStagingMemory::prepare(uint64_t bytes, int threads) {
  if (bytes == 0 || bytes > most_) return;
  {
    const std::lock_guard lock(mutex_);
    if (preparing_ || (memory_ && memory_->bytes() >= bytes)) return;
    preparing_ = true;
    wanted_ = false;
    memory_.reset();
  }
  std::optional<StagingMemory> made;
  try {
    made = StagingMemory::make(bytes);
    if (made && !made->populate_all(threads, &wanted_)) made.reset();
  } catch (const std::bad_alloc&) {
    made.reset();
  }
  {
    const std::lock_guard lock(mutex_);
    preparing_ = false;
    memory_.swap(made);
  }
  prepared_.notify_all();
}

uint64_t SpareStagingMemory::bytes() const {
  const std::lock_guard lock(mutex_);
  return memory_ ? memory_->bytes() : 0;
}

}  // namespace lorikeet::actors
