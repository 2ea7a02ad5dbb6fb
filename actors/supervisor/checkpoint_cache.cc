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
#include <limits>
#include <utility>

#include "actors/supervisor/checkpoint_digest.h"

namespace lorikeet::actors {
namespace {

namespace fs = std::filesystem;

constexpr const char* kLock = ".lock";  // its time says when the folder was used last
constexpr size_t kMaxName = 64;
constexpr uint64_t kBlock = 512;  // of st_blocks
constexpr int kMostFolders = 64;  // of one checkpoint, each of another process

bool is_plain(const std::string& name) {
  return !name.empty() && name.size() <= 255 && name.front() != '.' && name.find('/') == std::string::npos &&
         name.find('\0') == std::string::npos;
}

// What a folder takes of the disk; holes take nothing.
uint64_t bytes_of(const fs::path& folder) {
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

// Whether it is the lock of that folder still, and was not removed with it.
bool is_lock_of(const Descriptor& lock, const fs::path& folder) {
  struct stat held {
  }, there{};
  return lock && fstat(lock.get(), &held) == 0 && lstat((folder / kLock).c_str(), &there) == 0 &&
         held.st_dev == there.st_dev && held.st_ino == there.st_ino;
}

// Removes the folder whose lock is held. The lock file goes last, so that no process takes the folder before it is empty; a
// process that creates the folder again just then keeps it.
Result<void> remove_folder(const fs::path& folder) {
  std::error_code error;
  std::vector<fs::path> all;
  for (auto it = fs::directory_iterator(folder, error); !error && it != fs::directory_iterator(); it.increment(error)) {
    if (it->path().filename() != kLock) all.push_back(it->path());
  }
  for (auto path = all.begin(); !error && path != all.end(); ++path) fs::remove_all(*path, error);
  if (!error) fs::remove(folder / kLock, error);
  if (error) return fail("{}: {}", folder.string(), error.message());
  (void)rmdir(folder.c_str());
  return {};
}

// Of model and files: what is read from them has the same name and the same size.
Result<std::string> name_of(const std::string& model, const std::vector<checkpoint::File>& files) {
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
  return name;
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

uint64_t CachedFile::bytes_missing(const model::ByteRuns& runs) const {
  constexpr uint64_t kNever = std::numeric_limits<uint64_t>::max();
  uint64_t missing = 0;
  uint64_t data = 0, hole = 0;  // where the next data begins, and where it ends
  for (uint64_t run = 0; run < runs.count; ++run) {
    uint64_t at = runs.begin + run * runs.stride;
    const uint64_t end = at + runs.bytes;
    while (at < end) {
      if (at >= hole) {
        const off_t begins = lseek(file_.get(), static_cast<off_t>(at), SEEK_DATA);
        const off_t ends = begins < 0 ? begins : lseek(file_.get(), begins, SEEK_HOLE);
        data = begins < 0 ? kNever : static_cast<uint64_t>(begins);
        hole = ends < 0 ? kNever : static_cast<uint64_t>(ends);
      }
      if (at < data) missing += std::min(data, end) - at;
      at = at < data ? std::min(data, end) : std::min(hole, end);
    }
  }
  return missing;
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

Result<void> CachedFile::empty() const {
  struct stat info {};
  if (fstat(file_.get(), &info) != 0 || ftruncate(file_.get(), 0) != 0 || ftruncate(file_.get(), info.st_size) != 0) {
    return fail("{}: {}", path_.string(), std::strerror(errno));
  }
  return {};
}

Result<fs::path> CheckpointCache::open(const std::string& model, const std::vector<checkpoint::File>& files) {
  const auto name = name_of(model, files);
  if (!name) return tl::unexpected(name.error());
  if (*name == name_ && is_lock_of(lock_, folder_)) return folder_;
  for (int number = 1; number <= kMostFolders; ++number) {
    const fs::path folder = root_ / (number == 1 ? *name : fmt::format("{}.{}", *name, number));
    std::error_code error;
    fs::create_directories(folder, error);
    if (error) return fail("{}: {}", folder.string(), error.message());
    Descriptor lock = open_lock(folder);
    if (!lock) return fail("{}: {}", (folder / kLock).string(), std::strerror(errno));
    if (flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
      if (errno == EWOULDBLOCK) continue;
      return fail("{}: {}", (folder / kLock).string(), std::strerror(errno));
    }
    if (!is_lock_of(lock, folder)) return fail("{}: it was removed meanwhile", folder.string());
    futimens(lock.get(), nullptr);
    lock_ = std::move(lock);
    name_ = *name;
    folder_ = folder;
    return folder;
  }
  return fail("{}: {} others use it", (root_ / *name).string(), kMostFolders);
}

uint64_t CheckpointCache::bytes_on_disk() const {
  return bytes_of(folder_);
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
    others.push_back({it->path(), fs::last_write_time(it->path() / kLock, ignored), bytes_of(it->path())});
    taken += others.back().bytes;
  }
  if (error) return fail("{}: {}", root_.string(), error.message());
  std::sort(others.begin(), others.end(), [](const Other& one, const Other& other) { return one.used < other.used; });
  for (const Other& other : others) {
    if (taken + bytes <= space_) break;
    const Descriptor lock = open_lock(other.folder);
    if (!lock || flock(lock.get(), LOCK_EX | LOCK_NB) != 0) continue;
    if (!is_lock_of(lock, other.folder)) continue;
    if (auto ok = remove_folder(other.folder); !ok) return ok;
    taken -= other.bytes;
  }
  if (taken + bytes <= space_) return {};
  return fail("{}: {} bytes are in use by others, and {} more are needed, where {} are the most", root_.string(), taken,
              bytes, space_);
}

}  // namespace lorikeet::actors
