#include "model/checkpoint/safetensors_image.h"

#include <utility>

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

Result<void> SafetensorsImage::read_data() {
  data_.resize(data_size());
  return reader_->read(header_.data_begin, data_);
}

}  // namespace lorikeet::model
