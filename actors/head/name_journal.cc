#include "actors/head/name_journal.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <sstream>
#include <system_error>
#include <utility>

#include "comm/codec/codec.h"

namespace lorikeet::actors {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFolder = "/dev/shm";

std::string prefix() {
  // Processes have their numbers in a namespace, and /dev/shm may be shared by several.
  struct stat space {};
  const bool known = ::stat("/proc/self/ns/pid", &space) == 0;
  return fmt::format("lorikeet-names-{}-{}-", geteuid(), known ? static_cast<uint64_t>(space.st_ino) : 0);
}

// When a process began, in the kernel's ticks; nullopt: there is none. Its name may hold spaces and parentheses.
std::optional<std::string> began(const std::string& pid) {
  std::ifstream file("/proc/" + pid + "/stat");
  std::string text;
  if (!std::getline(file, text) || text.rfind(')') == std::string::npos) return std::nullopt;
  std::istringstream fields(text.substr(text.rfind(')') + 1));
  std::string field;
  for (int i = 3; i <= 22; ++i) fields >> field;  // the third stands behind the name; man 5 proc
  return field;
}

}  // namespace

NameJournal::NameJournal(fs::path path) : path_(std::move(path)) {
  if (open()) read();
}

fs::path NameJournal::path_of(pid_t supervisor) {
  const std::string pid = std::to_string(supervisor);
  return fs::path(kFolder) / (prefix() + pid + "-" + began(pid).value_or("0"));
}

void NameJournal::remove_dead() {
  std::error_code error;
  for (fs::directory_iterator it(kFolder, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (name.rfind(prefix(), 0) != 0) continue;
    const std::string of = name.substr(prefix().size());  // PID-BEGAN
    const std::string pid = of.substr(0, of.find('-'));
    if (pid.empty() || pid.size() > 9 || pid.find_first_not_of("0123456789") != std::string::npos) continue;
    const bool lives = name.rfind(path_of(std::stoi(pid)).filename().string(), 0) == 0;
    std::error_code ignored;
    if (!lives) fs::remove(it->path(), ignored);
  }
}

Result<void> NameJournal::open() {
  file_.reset(::open(path_.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600));
  struct stat about {};
  if (!file_ || fstat(file_.get(), &about) != 0) return fail("{}: {}", path_.string(), std::strerror(errno));
  if (!S_ISREG(about.st_mode) || about.st_uid != geteuid()) {
    file_.reset();
    return fail("{}: it is not this user's own file", path_.string());
  }
  bytes_ = static_cast<size_t>(about.st_size);
  return {};
}

// Each change is its length in four bytes, and itself.
void NameJournal::read() {
  std::string text;
  std::array<char, 64 << 10> piece{};
  for (ssize_t got = 1; got > 0 && text.size() <= kMaxBytes;) {
    got = pread(file_.get(), piece.data(), piece.size(), static_cast<off_t>(text.size()));
    if (got > 0) text.append(piece.data(), static_cast<size_t>(got));
  }
  size_t at = 0;
  size_t whole = 0;
  for (uint32_t size = 0; at + sizeof(size) <= text.size(); at += size) {
    std::memcpy(&size, text.data() + at, sizeof(size));
    at += sizeof(size);
    if (size > text.size() - at) break;
    const auto change = comm::decode<NameChange>({reinterpret_cast<const uint8_t*>(text.data()) + at, size});
    if (!change) break;
    changes_[change->name] = *change;
    whole = at + size;
  }
  std::erase_if(changes_, [](const auto& entry) { return entry.second.is_none(); });
  if (text.empty() || write_anew()) return;
  // Rewrites the file without its damaged end, behind which nothing may be appended.
  if (ftruncate(file_.get(), static_cast<off_t>(whole)) == 0) bytes_ = whole;
}

std::vector<NameChange> NameJournal::changes() const {
  std::vector<NameChange> list;
  for (const auto& [name, change] : changes_) list.push_back(change);
  return list;
}

Result<void> NameJournal::add(const NameChange& change) {
  change.is_none() ? static_cast<void>(changes_.erase(change.name)) : static_cast<void>(changes_[change.name] = change);
  if (!file_) {
    if (auto ok = open(); !ok) return ok;
  }
  if (bytes_ > kMaxBytes) return write_anew();
  return append(change);
}

Result<void> NameJournal::append(const NameChange& change) {
  const std::vector<uint8_t> bytes = comm::encode(change);
  const auto size = static_cast<uint32_t>(bytes.size());
  std::string record(reinterpret_cast<const char*>(&size), sizeof(size));
  record.append(bytes.begin(), bytes.end());
  // In one piece or, where memory ends, not at all: half of a change would hide those behind it.
  const ssize_t written = write(file_.get(), record.data(), record.size());
  if (written == static_cast<ssize_t>(record.size())) {
    bytes_ += record.size();
    return {};
  }
  const std::string why = written < 0 ? std::strerror(errno) : "there is no room";
  if (written > 0 && ftruncate(file_.get(), static_cast<off_t>(bytes_)) != 0) file_.reset();
  return fail("{}: {}", path_.string(), why);
}

// Writes a new file and renames it over the old one, so that one complete file exists whenever this process dies.
Result<void> NameJournal::write_anew() {
  const fs::path place = path_, beside = place.string() + ".new";
  std::error_code error;
  fs::remove(beside, error);
  NameJournal fresh(beside);
  if (!fresh.file_ || ftruncate(fresh.file_.get(), 0) != 0) return fail("{}: cannot be written", beside.string());
  fresh.bytes_ = 0;
  for (const auto& [name, change] : changes_) {
    if (fresh.bytes_ > kMaxBytes) return fail("{}: more than {} bytes of names", place.string(), kMaxBytes);
    if (auto ok = fresh.append(change); !ok) return ok;
  }
  fs::rename(beside, place, error);
  if (error) return fail("{}: {}", place.string(), error.message());
  file_ = std::move(fresh.file_);
  bytes_ = fresh.bytes_;
  return {};
}

void NameJournal::remove() {
  std::error_code ignored;
  fs::remove(path_, ignored);
}

}  // namespace lorikeet::actors
