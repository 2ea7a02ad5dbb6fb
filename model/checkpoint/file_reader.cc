#include "model/checkpoint/file_reader.h"

#include <fcntl.h>
#include <fmt/ranges.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>

#include "kernels/base/descriptor.h"

namespace lorikeet::model {
namespace {

std::atomic<uint64_t> bytes_read{0};

int64_t nanoseconds_of(const timespec& time) {
  return time.tv_sec * 1'000'000'000LL + time.tv_nsec;
}

std::string name_of(const Descriptor& file) {
  return fmt::format("/proc/self/fd/{}", file.get());
}

// Where a file lies, as the kernel says it.
Result<void> check_place(const Descriptor& file, const std::filesystem::path& path,
                         std::span<const std::string> within) {
  std::error_code error;
  const auto place = std::filesystem::read_symlink(name_of(file), error);
  if (error) return fail("{}: it is not known where it lies: {}", path.string(), error.message());
  for (const std::filesystem::path root : within) {
    if (std::mismatch(root.begin(), root.end(), place.begin(), place.end()).first == root.end()) return {};
  }
  return fail("{} leads to a file that is not below {}", path.string(), fmt::join(within, ", "));
}

}  // namespace

Result<std::shared_ptr<const FileReader>> FileReader::open(const std::filesystem::path& path,
                                                           std::span<const std::string> within) {
  // First without opening what the name leads to: a pipe would wait for its writer. A file that another program has a
  // lease on waits until that lets go of it.
  const Descriptor found(::open(path.c_str(), O_PATH | O_CLOEXEC));
  if (!found) return fail("{}: {}", path.string(), std::strerror(errno));
  if (!within.empty()) {
    if (auto ok = check_place(found, path, within); !ok) return tl::unexpected(ok.error());
  }
  struct stat info {};
  if (::fstat(found.get(), &info) != 0 || !S_ISREG(info.st_mode)) return fail("{}: not a regular file", path.string());
  Descriptor opened(::open(name_of(found).c_str(), O_RDONLY | O_CLOEXEC));
  if (!opened || ::fstat(opened.get(), &info) != 0) return fail("{}: {}", path.string(), std::strerror(errno));
  std::shared_ptr<FileReader> file(new FileReader(path, opened.release()));
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
