#include "actors/supervisor/checkpoint_cache.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <utility>

#include "actors/supervisor/checkpoint_digest.h"

namespace lorikeet::actors {
namespace {

namespace fs = std::filesystem;

constexpr const char* kLock = ".lock";  // its time says when the folder was used last
constexpr size_t kMaxName = 64;
constexpr uint64_t kBlock = 512;  // of st_blocks

bool is_plain(const std::string& name) {
  return !name.empty() && name.size() <= 255 && name.front() != '.' && name.find('/') == std::string::npos &&
         name.find('\0') == std::string::npos;
}

// What a folder takes of the disk; holes take nothing.
uint64_t bytes_on_disk(const fs::path& folder) {
  uint64_t bytes = 0;
  std::error_code error;
  for (auto it = fs::directory_iterator(folder, error); !error && it != fs::directory_iterator(); it.increment(error)) {
    struct stat info {};
    if (lstat(it->path().c_str(), &info) == 0) bytes += static_cast<uint64_t>(info.st_blocks) * kBlock;
  }
  return bytes;
}

Descriptor open_lock(const fs::path& folder) {
  return Descriptor(::open((folder / kLock).c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
}

}  // namespace

Result<CachedFile> CachedFile::open(const fs::path& path, uint64_t bytes) {
  Descriptor file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file) return fail("{}: {}", path.string(), std::strerror(errno));
  struct stat info {};
  if (fstat(file.get(), &info) != 0 || !S_ISREG(info.st_mode)) return fail("{}: no regular file", path.string());
  if (static_cast<uint64_t>(info.st_size) != bytes && ftruncate(file.get(), static_cast<off_t>(bytes)) != 0) {
    return fail("{}: {}", path.string(), std::strerror(errno));
  }
  return CachedFile(path, std::move(file));
}

Result<std::vector<uint8_t>> CachedFile::read(const model::ByteRuns& runs) const {
  const uint64_t end = runs.begin + runs.stride * (runs.count - 1) + runs.bytes;
  const off_t data = lseek(file_.get(), static_cast<off_t>(runs.begin), SEEK_DATA);
  if (data < 0 && errno == ENXIO) return std::vector<uint8_t>();
  if (data >= 0 && static_cast<uint64_t>(data) >= end) return std::vector<uint8_t>();
  std::vector<uint8_t> bytes(runs.total());
  for (uint64_t run = 0; run < runs.count; ++run) {
    for (uint64_t done = 0; done < runs.bytes;) {
      const ssize_t got = pread(file_.get(), bytes.data() + run * runs.bytes + done, runs.bytes - done,
                                static_cast<off_t>(runs.begin + run * runs.stride + done));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return fail("{}: {}", path_.string(), std::strerror(errno));
      if (got == 0) return fail("{}: it has become shorter", path_.string());
      done += static_cast<uint64_t>(got);
    }
  }
  return bytes;
}

Result<void> CachedFile::write(const model::ByteRuns& runs, std::span<const uint8_t> bytes) const {
  for (uint64_t run = 0; run < runs.count; ++run) {
    for (uint64_t done = 0; done < runs.bytes;) {
      const ssize_t put = pwrite(file_.get(), bytes.data() + run * runs.bytes + done, runs.bytes - done,
                                 static_cast<off_t>(runs.begin + run * runs.stride + done));
      if (put < 0 && errno == EINTR) continue;
      if (put < 0) return fail("{}: {}", path_.string(), std::strerror(errno));
      done += static_cast<uint64_t>(put);
    }
  }
  return {};
}

Result<fs::path> CheckpointCache::open(const std::string& model, const std::vector<checkpoint::File>& files) {
  std::string all;
  for (const checkpoint::File& file : files) {
    if (!is_plain(file.name)) return fail("the head's checkpoint has a file without a plain name");
    all += fmt::format("{}/{}\n", file.name, file.bytes);
  }
  std::string name = fs::path(model).filename().string();
  if (name.size() > kMaxName) name.resize(kMaxName);
  std::replace_if(
      name.begin(), name.end(), [](unsigned char c) { return std::isalnum(c) == 0 && c != '-' && c != '_'; }, '_');
  const std::string digest = sha256({reinterpret_cast<const uint8_t*>(all.data()), all.size()});
  name += '-';
  for (const char byte : digest.substr(0, 8)) name += fmt::format("{:02x}", static_cast<unsigned char>(byte));

  const fs::path folder = root_ / name;
  if (folder == folder_) return folder;
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) return fail("{}: {}", folder.string(), error.message());
  Descriptor lock = open_lock(folder);
  if (!lock || flock(lock.get(), LOCK_SH | LOCK_NB) != 0) {
    return fail("{}: {}", (folder / kLock).string(), std::strerror(errno));
  }
  futimens(lock.get(), nullptr);
  lock_ = std::move(lock);
  folder_ = folder;
  return folder;
}

Result<void> CheckpointCache::make_room(uint64_t bytes) const {
  if (space_ == 0) return {};
  struct Other {
    fs::path folder;
    fs::file_time_type used;
    uint64_t bytes = 0;
  };
  std::vector<Other> others;
  uint64_t taken = 0;
  std::error_code error;
  for (auto it = fs::directory_iterator(root_, error); !error && it != fs::directory_iterator(); it.increment(error)) {
    std::error_code ignored;
    if (it->path() == folder_ || !it->is_directory(ignored) || !fs::exists(it->path() / kLock, ignored)) continue;
    others.push_back({it->path(), fs::last_write_time(it->path() / kLock, ignored), bytes_on_disk(it->path())});
    taken += others.back().bytes;
  }
  if (error) return fail("{}: {}", root_.string(), error.message());
  std::sort(others.begin(), others.end(), [](const Other& one, const Other& other) { return one.used < other.used; });
  for (const Other& other : others) {
    if (taken + bytes <= space_) break;
    const Descriptor lock = open_lock(other.folder);
    if (!lock || flock(lock.get(), LOCK_EX | LOCK_NB) != 0) continue;
    fs::remove_all(other.folder, error);
    if (error) return fail("{}: {}", other.folder.string(), error.message());
    taken -= other.bytes;
  }
  if (taken + bytes <= space_) return {};
  return fail("{}: {} bytes are in use by others, and {} more are needed, where {} are the most", root_.string(), taken,
              bytes, space_);
}

}  // namespace lorikeet::actors
