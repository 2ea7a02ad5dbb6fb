#include "model/checkpoint/safetensors_image.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace lorikeet::model {
namespace {

// Fills `into` from `offset` on.
Result<void> read_all(int fd, uint64_t offset, std::span<uint8_t> into, const std::filesystem::path& path) {
  constexpr size_t kAtOnce = 1u << 30;  // a read call gives at most 2 GiB
  size_t done = 0;
  while (done < into.size()) {
    const ssize_t got =
        ::pread(fd, into.data() + done, std::min(into.size() - done, kAtOnce), static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail("{}: {}", path.string(), std::strerror(errno));
    if (got == 0) return fail("{}: became shorter while it was read", path.string());
    done += static_cast<size_t>(got);
  }
  return {};
}

}  // namespace

Result<std::shared_ptr<SafetensorsImage>> SafetensorsImage::open(const std::filesystem::path& path) {
  // Opening a pipe must not wait for its writer.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return fail("{}: {}", path.string(), std::strerror(errno));
  std::shared_ptr<SafetensorsImage> image(new SafetensorsImage(path, fd));
  struct stat info {};
  if (::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) return fail("{}: not a regular file", path.string());
  image->size_ = static_cast<uint64_t>(info.st_size);

  image->head_.resize(std::min<uint64_t>(8, image->size_));
  if (auto ok = read_all(fd, 0, image->head_, path); !ok) return tl::unexpected(ok.error());
  const auto header_end = safetensors_header_end(image->head_, image->size_, path.string());
  if (!header_end) return tl::unexpected(header_end.error());
  image->head_.resize(*header_end);
  if (auto ok = read_all(fd, 0, image->head_, path); !ok) return tl::unexpected(ok.error());
  auto header = parse_safetensors_header(image->head_, image->size_, path.string());
  if (!header) return tl::unexpected(header.error());
  image->header_ = std::move(*header);
  return image;
}

SafetensorsImage::~SafetensorsImage() {
  ::close(fd_);
}

Result<void> SafetensorsImage::read_data() {
  data_.resize(data_size());
  return read_all(fd_, header_.data_begin, data_, path_);
}

}  // namespace lorikeet::model
