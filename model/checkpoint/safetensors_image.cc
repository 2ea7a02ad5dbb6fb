#include "model/checkpoint/safetensors_image.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <utility>

#include "model/checkpoint/in_parallel.h"
#include "model/checkpoint/safetensors_file.h"

namespace lorikeet::model {
namespace {

// Memory that comes in few large pages, where the system gives them to whoever asks, comes sooner.
void prefer_large_pages(std::span<uint8_t> memory) {
  constexpr uintptr_t kPage = 4096;
  const auto begin = reinterpret_cast<uintptr_t>(memory.data());
  const uintptr_t first = (begin + kPage - 1) / kPage * kPage, last = (begin + memory.size()) / kPage * kPage;
  if (first < last) madvise(memory.data() + (first - begin), last - first, MADV_HUGEPAGE);
}

Result<void> first_error(const std::vector<Result<void>>& done) {
  for (const Result<void>& one : done) {
    if (!one) return one;
  }
  return {};
}

}  // namespace

Result<std::shared_ptr<SafetensorsImage>> SafetensorsImage::open(const std::filesystem::path& path,
                                                                 std::span<const std::string> within) {
  auto reader = FileReader::open(path, within);
  if (!reader) return tl::unexpected(reader.error());
  std::shared_ptr<SafetensorsImage> image(new SafetensorsImage(std::move(*reader)));
  auto header = read_safetensors_header(*image->reader_, image->head_);
  if (!header) return tl::unexpected(header.error());
  image->header_ = std::move(*header);
  return image;
}

std::vector<const TensorEntry*> SafetensorsImage::entries() const {
  std::vector<const TensorEntry*> entries;
  for (const auto& named : header_.tensors) entries.push_back(&named.second);
  return entries;
}

Result<void> SafetensorsImage::read_data(int threads, const Look& look) {
  data_.reset(new uint8_t[data_size()]);  // not zeroed: every byte belongs to a tensor
  prefer_large_pages({data_.get(), data_size()});
  const auto entries = this->entries();
  std::vector<Result<void>> done(entries.size());
  in_parallel(entries.size(), threads, [&](size_t i) {
    const TensorEntry& entry = *entries[i];
    const std::span<uint8_t> bytes(data_.get() + entry.begin, entry.end - entry.begin);
    done[i] = reader_->read(header_.data_begin + entry.begin, bytes);
    if (done[i] && look) done[i] = look(i, entry, bytes);
  });
  return first_error(done);
}

Result<void> SafetensorsImage::stream_data(int threads, const Look& look) const {
  const auto entries = this->entries();
  std::vector<Result<void>> done(entries.size());
  std::atomic<size_t> next{0};
  in_parallel(std::min(entries.size(), static_cast<size_t>(std::max(1, threads))), threads, [&](size_t) {
    std::unique_ptr<uint8_t[]> memory;
    uint64_t room = 0;
    for (size_t i = next++; i < entries.size(); i = next++) {
      const TensorEntry& entry = *entries[i];
      const uint64_t size = entry.end - entry.begin;
      if (size > room) {
        memory.reset(new uint8_t[size]);  // not zeroed: it is read over
        room = size;
      }
      const std::span<uint8_t> bytes(memory.get(), size);
      done[i] = reader_->read(header_.data_begin + entry.begin, bytes);
      if (done[i]) done[i] = look(i, entry, bytes);
    }
  });
  return first_error(done);
}

}  // namespace lorikeet::model
