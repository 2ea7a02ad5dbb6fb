#include "model/checkpoint/safetensors_file.h"

#include <algorithm>
#include <utility>

#include "kernels/base/printable.h"

namespace lorikeet::model {
namespace {

// Bytes of one tensor, and what their view pointed into before.
struct Content {
  std::shared_ptr<const void> header;
  std::unique_ptr<uint8_t[]> bytes;
};

}  // namespace

Result<SafetensorsHeader> read_safetensors_header(const FileReader& file, std::vector<uint8_t>& head) {
  head.resize(std::min<uint64_t>(8, file.size()));
  if (auto ok = file.read(0, head); !ok) return tl::unexpected(ok.error());
  const auto header_end = safetensors_header_end(head, file.size(), file.path().string());
  if (!header_end) return tl::unexpected(header_end.error());
  head.resize(*header_end);
  if (auto ok = file.read(0, head); !ok) return tl::unexpected(ok.error());
  return parse_safetensors_header(head, file.size(), file.path().string());
}

Result<std::shared_ptr<const SafetensorsFile>> SafetensorsFile::open(const std::filesystem::path& path) {
  auto reader = FileReader::open(path);
  if (!reader) return tl::unexpected(reader.error());
  std::shared_ptr<SafetensorsFile> file(new SafetensorsFile(std::move(*reader)));
  std::vector<uint8_t> head;
  auto header = read_safetensors_header(*file->reader_, head);
  if (!header) return tl::unexpected(header.error());
  file->header_ = std::move(*header);
  return file;
}

std::optional<TensorView> SafetensorsFile::find(std::string_view name) const {
  const auto it = header_.tensors.find(name);
  if (it == header_.tensors.end()) return std::nullopt;
  return TensorView{
      &it->second, {}, shared_from_this(), fmt::format("{}: {}", path().filename().string(), printable(name)), this};
}

Result<void> SafetensorsFile::read(const TensorEntry& entry, uint64_t offset, std::span<uint8_t> into) const {
  return reader_->read(header_.data_begin + entry.begin + offset, into);
}

Result<void> read_bytes(TensorView& tensor) {
  if (tensor.file == nullptr || !tensor.bytes.empty()) return {};
  const uint64_t size = tensor.entry->end - tensor.entry->begin;
  auto content = std::make_shared<Content>();
  content->bytes.reset(new uint8_t[size]);  // not set to 0 first
  const std::span<uint8_t> bytes(content->bytes.get(), size);
  if (auto ok = tensor.file->read(*tensor.entry, 0, bytes); !ok) return ok;
  content->header = std::move(tensor.owner);
  tensor.bytes = bytes;
  tensor.owner = std::move(content);
  return {};
}

}  // namespace lorikeet::model
