#include "model/checkpoint/safetensors_image.h"

#include <utility>

#include "model/checkpoint/in_parallel.h"
#include "model/checkpoint/safetensors_file.h"

namespace lorikeet::model {

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
