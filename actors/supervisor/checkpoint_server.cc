#include "actors/supervisor/checkpoint_server.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <new>
#include <string_view>
#include <system_error>
#include <variant>
#include <vector>

#include "actors/supervisor/checkpoint_digest.h"
#include "actors/wire/checkpoint_message.h"
#include "comm/codec/codec.h"
#include "model/checkpoint/file_reader.h"

namespace lorikeet::actors {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxSmallFile = 64 << 20;  // of a configuration or a vocabulary

// The names of the files that loading reads (model/config, model/tokenizer, model/chat, model/checkpoint); no others.
bool is_wanted(const fs::path& path, uint64_t bytes) {
  constexpr std::array<std::string_view, 14> kSmall = {
      "added_tokens.json", "chat_template.jinja",    "chat_template.json",      "config.json",
      "merges.txt",        "generation_config.json", "quant_config.json",       "quantization_config.json",
      "qwen.tiktoken",     "quantize_config.json",   "special_tokens_map.json", "tokenizer.json",
      "vocab.json",        "tokenizer_config.json"};
  const std::string name = path.filename().string();
  if (name.front() == '.') return false;
  if (path.extension() == ".safetensors") return true;
  const bool is_small =
      name.ends_with(".safetensors.index.json") || std::find(kSmall.begin(), kSmall.end(), name) != kSmall.end();
  return is_small && bytes <= kMaxSmallFile;
}

// The files of one connection. Each is opened once, so that a change in between is an error.
class Files {
 public:
  explicit Files(const std::string& directory) : directory_(directory) {}

  checkpoint::Files list() {
    checkpoint::Files answer;
    list_.clear();
    open_.clear();
    std::error_code error;
    for (auto it = fs::directory_iterator(directory_, error); !error && it != fs::directory_iterator();
         it.increment(error)) {
      struct stat info {};  // links are followed: a downloaded model is a folder of them
      if (stat(it->path().c_str(), &info) != 0 || !S_ISREG(info.st_mode)) continue;
      const auto bytes = static_cast<uint64_t>(info.st_size);
      if (!is_wanted(it->path(), bytes)) continue;
      list_.push_back(
          {it->path().filename().string(), bytes, info.st_mtim.tv_sec * 1'000'000'000LL + info.st_mtim.tv_nsec});
    }
    if (error) answer.error = fmt::format("{}: {}", directory_, error.message());
    std::sort(list_.begin(), list_.end(), [](const auto& one, const auto& other) { return one.name < other.name; });
    open_.resize(list_.size());
    answer.files = list_;
    return answer;
  }

  checkpoint::Piece read(const checkpoint::ReadPiece& wanted) {
    checkpoint::Piece answer;
    if (auto bytes = read_runs(wanted); bytes) {
      answer.bytes = *std::move(bytes);
    } else {
      answer.error = bytes.error().message;
      return answer;
    }
    answer.digest = sha256(answer.bytes);
    answer.same = answer.digest == wanted.has;
    if (answer.same) answer.bytes.clear();
    return answer;
  }

 private:
  Result<std::vector<uint8_t>> read_runs(const checkpoint::ReadPiece& wanted) {
    const model::ByteRuns& runs = wanted.runs;
    if (wanted.file >= list_.size()) return fail("there is no file {}", wanted.file);
    const checkpoint::File& about = list_[wanted.file];
    // Without an overflow: each number is at most the file's size or the piece's.
    const bool fits = runs.bytes > 0 && runs.bytes <= kMaxCheckpointPiece && runs.count > 0 &&
                      runs.count <= kMaxCheckpointPiece / runs.bytes && runs.stride <= about.bytes &&
                      runs.begin <= about.bytes &&
                      (runs.count == 1 || runs.stride <= (about.bytes - runs.begin) / (runs.count - 1)) &&
                      runs.bytes <= about.bytes - runs.begin - runs.stride * (runs.count - 1);
    if (!fits) return fail("{} has no such piece", about.name);
    auto& file = open_[wanted.file];
    if (!file) {
      auto opened = model::FileReader::open(fs::path(directory_) / about.name);
      if (!opened) return tl::unexpected(opened.error());
      if ((*opened)->size() != about.bytes) return fail("{}: it is another file now", about.name);
      file = *std::move(opened);
    }
    std::vector<uint8_t> bytes(runs.total());
    for (uint64_t run = 0; run < runs.count; ++run) {
      const std::span<uint8_t> into = std::span(bytes).subspan(run * runs.bytes, runs.bytes);
      if (auto ok = file->read(runs.begin + run * runs.stride, into); !ok) return tl::unexpected(ok.error());
    }
    return bytes;
  }

  const std::string& directory_;
  std::vector<checkpoint::File> list_;
  std::vector<std::shared_ptr<const model::FileReader>> open_;  // null: not yet
};

}  // namespace

CheckpointServer::~CheckpointServer() {
  const std::lock_guard lock(mutex_);
  for (const auto& stream : streams_) stream->stream.end();
  for (const auto& stream : streams_) stream->thread.join();
}

void CheckpointServer::serve(comm::TlsConnection connection, uint64_t host) {
  const std::lock_guard lock(mutex_);
  for (auto it = streams_.begin(); it != streams_.end();) {
    if (!(*it)->over) {
      ++it;
      continue;
    }
    (*it)->thread.join();
    it = streams_.erase(it);
  }
  const auto own = static_cast<size_t>(
      std::count_if(streams_.begin(), streams_.end(), [&](const auto& stream) { return stream->host == host; }));
  if (streams_.size() >= kMaxStreams || own >= kCheckpointStreams) return;
  Stream& fresh = *streams_.emplace_back(std::make_unique<Stream>(std::move(connection), host));
  try {
    fresh.thread = std::thread([this, &fresh] {
      try {
        read_to(fresh.stream);
      } catch (const std::bad_alloc&) {  // it may ask again
      }
      fresh.stream.end();
      fresh.over = true;
    });
  } catch (const std::system_error&) {  // no more threads now: it may dial again
    streams_.pop_back();
  }
}

void CheckpointServer::end(uint64_t host) {
  const std::lock_guard lock(mutex_);
  for (const auto& stream : streams_) {
    if (stream->host == host) stream->stream.end();
  }
}

// Until it ends, or says what makes no sense.
void CheckpointServer::read_to(comm::TlsStream& stream) const {
  Files files(directory_);
  for (;;) {
    const auto bytes = stream.receive(kMaxCheckpointRequest);
    if (!bytes) return;
    const auto request = comm::decode<CheckpointRequest>(*bytes);
    if (!request) return;
    CheckpointAnswer answer;
    if (const auto* piece = std::get_if<checkpoint::ReadPiece>(&*request)) {
      answer = files.read(*piece);
    } else {
      answer = files.list();
    }
    if (!stream.send(comm::encode(answer))) return;
  }
}

}  // namespace lorikeet::actors
