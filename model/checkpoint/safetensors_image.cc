#include "model/checkpoint/safetensors_image.h"

#include <sys/mman.h>

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

Result<void> SafetensorsImage::read_data(int threads, const Look& look) {
  data_.reset(new uint8_t[data_size()]);  // not zeroed: every byte belongs to a tensor
  prefer_large_pages({data_.get(), data_size()});
  std::vector<const TensorEntry*> entries;
  for (const auto& named : header_.tensors) entries.push_back(&named.second);
  std::vector<Result<void>> done(entries.size());
  in_parallel(entries.size(), threads, [&](size_t i) {
    const TensorEntry& entry = *entries[i];
    const std::span<uint8_t> bytes(data_.get() + entry.begin, entry.end - entry.begin);
    done[i] = reader_->read(header_.data_begin + entry.begin, bytes);
    if (done[i] && look) done[i] = look(i, entry, bytes);
  });
  for (const Result<void>& one : done) {
    if (!one) return one;
  }
  return {};
}

}  // namespace lorikeet::model
