#include "model/checkpoint/file_reader.h"

#include <fcntl.h>
#include <fmt/ranges.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>

namespace lorikeet::model {
namespace {

std::atomic<uint64_t> bytes_read{0};

int64_t nanoseconds_of(const timespec& time) {
  return time.tv_sec * 1'000'000'000LL + time.tv_nsec;
}

// Where an open file lies, as the kernel says it.
Result<void> check_place(int fd, const std::filesystem::path& path, std::span<const std::string> within) {
  std::error_code error;
  const auto place = std::filesystem::read_symlink(fmt::format("/proc/self/fd/{}", fd), error);
  if (error) return fail("{}: it is not known where it lies: {}", path.string(), error.message());
  for (const std::filesystem::path root : within) {
    if (std::mismatch(root.begin(), root.end(), place.begin(), place.end()).first == root.end()) return {};
  }
  return fail("{} leads to a file that is not below {}", path.string(), fmt::join(within, ", "));
}

}  // namespace

Result<std::shared_ptr<const FileReader>> FileReader::open(const std::filesystem::path& path,
                                                           std::span<const std::string> within) {
  // Opening a pipe must not wait for its writer.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return fail("{}: {}", path.string(), std::strerror(errno));
  std::shared_ptr<FileReader> file(new FileReader(path, fd));
  if (!within.empty()) {
    if (auto ok = check_place(fd, path, within); !ok) return tl::unexpected(ok.error());
  }
  struct stat info {};
  if (::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) return fail("{}: not a regular file", path.string());
  file->size_ = static_cast<uint64_t>(info.st_size);
  file->written_ns_ = nanoseconds_of(info.st_mtim);
  return file;
}

FileReader::~FileReader() {
  ::close(fd_);
}

Result<void> FileReader::read(uint64_t offset, std::span<uint8_t> into) const {
  constexpr size_t kAtOnce = 1u << 30;  // a read call gives at most 2 GiB
  size_t done = 0;
  while (done < into.size()) {
    const ssize_t got =
        ::pread(fd_, into.data() + done, std::min(into.size() - done, kAtOnce), static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail("{}: {}", path_.string(), std::strerror(errno));
    if (got == 0) return fail("{}: became shorter while it was read", path_.string());
    done += static_cast<size_t>(got);
    bytes_read += static_cast<uint64_t>(got);
  }
  struct stat info {};
  if (::fstat(fd_, &info) != 0) return fail("{}: {}", path_.string(), std::strerror(errno));
  if (static_cast<uint64_t>(info.st_size) < size_) {
    return fail("{}: became shorter while it was read", path_.string());
  }
  if (static_cast<uint64_t>(info.st_size) != size_ || nanoseconds_of(info.st_mtim) != written_ns_) {
    return fail("{}: was written to while it was read", path_.string());
  }
  return {};
}

uint64_t bytes_read_from_files() {
  return bytes_read;
}

}  // namespace lorikeet::model
