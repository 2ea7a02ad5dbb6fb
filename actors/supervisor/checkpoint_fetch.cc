#include "actors/supervisor/checkpoint_fetch.h"

#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <optional>
#include <thread>
#include <utility>
#include <variant>

#include "actors/supervisor/checkpoint_digest.h"
#include "comm/codec/codec.h"
#include "model/checkpoint/safetensors.h"
#include "model/checkpoint/shard_plan.h"
#include "model/config/config.h"

namespace lorikeet::actors {
namespace {

namespace fs = std::filesystem;
using model::ByteRuns;

constexpr uint64_t kLengthBytes = 8;  // at the begin of a safetensors file

bool has_tensors(const std::string& name) {
  return fs::path(name).extension() == ".safetensors";
}

// A connection to the head, known to `stop` while it lives.
class Line {
 public:
  static Result<std::unique_ptr<Line>> open(const CheckpointFetcher::Dial& dial, FetchStop& stop) {
    if (stop.is_stopped()) return fail("it was stopped");
    auto connection = dial();
    if (!connection) return tl::unexpected(connection.error());
    return std::unique_ptr<Line>(new Line(*std::move(connection), stop));
  }
  ~Line() { stop_.remove(&stream_); }
  Line(const Line&) = delete;
  Line& operator=(const Line&) = delete;

  Result<std::vector<checkpoint::File>> list() {
    auto answer = ask<checkpoint::Files>(checkpoint::ListFiles{});
    if (!answer) return tl::unexpected(answer.error());
    if (!answer->error.empty()) return fail("the head: {}", answer->error);
    return std::move(answer->files);
  }

  Result<checkpoint::Piece> read(checkpoint::ReadPiece wanted) { return ask<checkpoint::Piece>(std::move(wanted)); }

 private:
  Line(comm::TlsConnection connection, FetchStop& stop)
      : stream_(std::move(connection), CheckpointFetcher::kPatience), stop_(stop) {
    stop_.add(&stream_);
  }

  template <class Answer>
  Result<Answer> ask(CheckpointRequest request) {
    if (auto ok = stream_.send(comm::encode(request)); !ok) return fail("the head: {}", ok.error().message);
    const auto bytes = stream_.receive(kMaxCheckpointAnswer);
    if (!bytes) return fail("the head: {}", bytes.error().message);
    auto answer = comm::decode<CheckpointAnswer>(*bytes);
    if (!answer || !std::holds_alternative<Answer>(*answer)) return fail("the head: its answer makes no sense");
    return std::get<Answer>(*std::move(answer));
  }

  comm::TlsStream stream_;
  FetchStop& stop_;
};

}  // namespace

// One attempt to fetch a rank's part.
class CheckpointFetcher::Fetch {
 public:
  Fetch(const Dial& dial, std::unique_ptr<Line> first, FetchStop& stop, const Progress& progress,
        const fs::path& folder, const std::vector<checkpoint::File>& files, std::atomic<uint64_t>& received)
      : dial_(dial),
        first_(std::move(first)),
        stop_(stop),
        progress_(progress),
        folder_(folder),
        files_(files),
        received_(received) {}

  // Everything but tensors, and the headers of these.
  Result<void> get_outer() {
    for (size_t i = 0; i < files_.size(); ++i) {
      auto file = CachedFile::open(folder_ / files_[i].name, files_[i].bytes);
      if (!file) return tl::unexpected(file.error());
      cached_.push_back(*std::move(file));
      numbers_[files_[i].name] = static_cast<uint32_t>(i);
      auto ok = has_tensors(files_[i].name) ? get_header(i) : get(i, 0, files_[i].bytes);
      if (!ok) return ok;
    }
    return {};
  }

  uint64_t bytes_missing(const std::vector<model::FilePart>& parts) const {
    uint64_t missing = 0;
    for (const model::FilePart& part : parts) missing += cached_[numbers_.at(part.file)].bytes_missing(part.runs);
    return missing;
  }

  // Of the tensors only their headers are there then.
  Result<void> empty_tensors() {
    for (size_t i = 0; i < files_.size(); ++i) {
      if (!has_tensors(files_[i].name)) continue;
      if (auto ok = cached_[i].empty(); !ok) return ok;
      if (auto ok = get_header(i); !ok) return ok;
    }
    return {};
  }

  // Tensors, over several lines, of which the first one is there.
  Result<void> get_parts(const std::vector<model::FilePart>& parts) {
    for (model::FilePart& piece : model::in_pieces(parts, kMaxCheckpointPiece)) {
      total_ += piece.runs.total();
      left_.push_back(std::move(piece));
    }
    in_tensors_ = true;
    progress_(0, total_);
    std::vector<std::thread> others;
    for (size_t i = 1; i < std::min(kCheckpointStreams, left_.size()); ++i) {
      others.emplace_back([this] {
        auto line = Line::open(dial_, stop_);
        if (!line) return note(line.error());
        // A file's number is its place in the list that the connection has asked for.
        if (const auto same = is_the_same(**line); !same) return note(same.error());
        (void)work(**line);
      });
    }
    const bool well = work(*first_);
    for (std::thread& other : others) other.join();
    if (well) (void)work(*first_);  // pieces that failed on other lines after this one was done
    if (left_.empty() && done_ == total_) return is_the_same();  // every file was opened between the two lists
    return tl::unexpected(error_.value_or(Error{"it was stopped"}));
  }

  // Whether the head has the files that it had at the begin.
  Result<void> is_the_same() const { return is_the_same(*first_); }

 private:
  Result<void> is_the_same(Line& line) const {
    const auto files = line.list();
    if (!files) return tl::unexpected(files.error());
    if (*files != files_) return fail("the head: its checkpoint was replaced meanwhile");
    return {};
  }

  // A file that has no header is no error here, as it may be none of the model's: opening the checkpoint will say what is
  // missing.
  Result<void> get_header(size_t file) {
    if (files_[file].bytes < kLengthBytes) return {};
    if (auto ok = get(file, 0, kLengthBytes); !ok) return ok;
    const auto head = cached_[file].read({0, kLengthBytes, 0, 1});
    if (!head) return tl::unexpected(head.error());
    const auto end = model::safetensors_header_end(*head, files_[file].bytes, files_[file].name);
    return end ? get(file, kLengthBytes, *end - kLengthBytes) : Result<void>();
  }

  Result<void> get(size_t file, uint64_t begin, uint64_t bytes) {
    const std::vector<model::FilePart> whole = {{files_[file].name, {begin, bytes, 0, 1}}};
    for (const model::FilePart& piece : model::in_pieces(whole, kMaxCheckpointPiece)) {
      if (auto ok = get(*first_, piece); !ok) return ok;
    }
    return {};
  }

  Result<void> get(Line& line, const model::FilePart& piece) {
    const uint32_t number = numbers_.at(piece.file);
    const CachedFile& file = cached_[number];
    const auto there = file.read(piece.runs);
    if (!there) return disk(there.error());
    auto answer = line.read({number, piece.runs, there->empty() ? "" : sha256(*there)});
    if (!answer) return tl::unexpected(answer.error());
    if (!answer->error.empty()) return fail("the head: {}", answer->error);
    if (answer->same && !there->empty()) return {};
    if (answer->bytes.size() != piece.runs.total() || sha256(answer->bytes) != answer->digest) {
      return fail("the head: {} bytes of {} are not those of its digest", answer->bytes.size(), piece.file);
    }
    if (in_tensors_) received_ += answer->bytes.size();
    if (auto ok = file.write(piece.runs, answer->bytes); !ok) return disk(ok.error());
    return {};
  }

  // What another line would not mend.
  Result<void> disk(const Error& error) {
    const std::lock_guard lock(mutex_);
    disk_fails_ = true;
    return tl::unexpected(error);
  }

  // A line that fails gives its piece back to the others. False: it failed.
  bool work(Line& line) {
    for (;;) {
      std::optional<model::FilePart> piece;
      {
        const std::lock_guard lock(mutex_);
        if (left_.empty() || disk_fails_) return true;
        piece = std::move(left_.front());
        left_.pop_front();
      }
      const auto got = get(line, *piece);
      const std::lock_guard lock(mutex_);
      if (!got) {
        left_.push_front(*std::move(piece));
        if (!error_ || disk_fails_) error_ = got.error();
        return false;
      }
      done_ += piece->runs.total();
      progress_(done_, total_);
    }
  }

  void note(const Error& error) {
    const std::lock_guard lock(mutex_);
    if (!error_) error_ = error;
  }

  const Dial& dial_;
  const std::unique_ptr<Line> first_;
  FetchStop& stop_;
  const Progress& progress_;
  const fs::path& folder_;
  const std::vector<checkpoint::File>& files_;
  std::atomic<uint64_t>& received_;
  bool in_tensors_ = false;
  std::vector<CachedFile> cached_;           // [file]
  std::map<std::string, uint32_t> numbers_;  // of files_
  std::mutex mutex_;                         // guards what follows
  std::deque<model::FilePart> left_;
  uint64_t done_ = 0, total_ = 0;
  bool disk_fails_ = false;
  std::optional<Error> error_;
};

namespace {

bool all_there(const fs::path& folder, const std::vector<checkpoint::File>& files) {
  return std::all_of(files.begin(), files.end(), [&](const checkpoint::File& file) {
    std::error_code error;
    return fs::file_size(folder / file.name, error) == file.bytes && !error;
  });
}

tl::unexpected<CheckpointFetcher::Failure> failed(const Error& error) {
  return tl::unexpected(CheckpointFetcher::Failure{error.message, false});
}

}  // namespace

void FetchStop::stop() {
  const std::lock_guard lock(mutex_);
  stopped_ = true;
  for (const comm::TlsStream* stream : streams_) stream->end();
}

bool FetchStop::is_stopped() const {
  const std::lock_guard lock(mutex_);
  return stopped_;
}

void FetchStop::add(const comm::TlsStream* stream) {
  const std::lock_guard lock(mutex_);
  streams_.insert(stream);
  if (stopped_) stream->end();
}

void FetchStop::remove(const comm::TlsStream* stream) {
  const std::lock_guard lock(mutex_);
  streams_.erase(stream);
}

// Room for the parts of a rank, of of_rank bytes with the files around them.
Result<void> CheckpointFetcher::make_room(Fetch& fetch, const std::vector<model::FilePart>& parts, uint64_t of_rank) {
  if (cache_.space() == 0) return {};
  if (!has_leftovers_) {
    for (const auto& [other, of_other] : known_) of_rank += of_other.bytes;
    return cache_.make_room(of_rank);
  }
  const uint64_t then = cache_.bytes_on_disk() + fetch.bytes_missing(parts);
  if (then <= cache_.space()) return cache_.make_room(then);
  // Parts of other ranks leave no room. It is not known which bytes are theirs alone, so all have to go.
  if (auto ok = fetch.empty_tensors(); !ok) return ok;
  known_.clear();
  has_leftovers_ = false;
  ++times_emptied_;
  return cache_.make_room(of_rank);
}

tl::expected<fs::path, CheckpointFetcher::Failure> CheckpointFetcher::fetch(const Dial& dial,
                                                                            const ServerOptions& options, int32_t rank,
                                                                            FetchStop& stop, const Progress& progress) {
  auto line = Line::open(dial, stop);
  if (!line) return failed(line.error());
  const auto files = (*line)->list();
  if (!files) return failed(files.error());
  const auto folder = cache_.open(options.model, *files);
  if (!folder) return failed(folder.error());
  const bool tensors = options.load_format != "dummy";
  Known known{*files, options.tensor_parallel_size, tensors};
  // Where files had to be created, nothing is known of other ranks' parts any more; nor where another checkpoint was here in
  // between, whose bytes may have replaced this one's.
  if (std::exchange(folder_, *folder) != *folder || !all_there(*folder, *files)) known_.clear();
  std::erase_if(known_, [&](const auto& one) { return !one.second.is_same(known); });
  if (known_.empty()) has_leftovers_ = true;
  if (known_.count(rank) > 0) return *folder;
  for (const checkpoint::File& file : *files) known.bytes += has_tensors(file.name) ? 0 : file.bytes;

  Fetch fetch(dial, *std::move(line), stop, progress, *folder, *files, received_);
  if (auto ok = fetch.get_outer(); !ok) return failed(ok.error());
  if (tensors) {
    // These files were compared with the head's by digest: trying again would fail the same way.
    const auto wrong = [&fetch](const Error& error) -> tl::unexpected<Failure> {
      if (const auto same = fetch.is_the_same(); !same) return failed(same.error());
      return tl::unexpected(Failure{"the head's checkpoint cannot be loaded: " + error.message, true});
    };
    const auto config = model::read_model_config(folder->string());
    if (!config) return wrong(config.error());
    const auto plan = model::ShardPlan::make(*config, options.tensor_parallel_size);
    if (!plan) return wrong(plan.error());
    const auto stored = model::Checkpoint::open(*folder);
    if (!stored) return wrong(stored.error());
    const auto parts = model::parts_of_rank(*stored, *plan, rank);
    for (const model::FilePart& part : parts) known.bytes += part.runs.total();
    uint64_t needed = known.bytes;  // at the most: ranks of one host have parts in common
    for (const auto& [other, of_other] : known_) needed += of_other.bytes;
    if (cache_.space() > 0 && needed > cache_.space()) {
      return tl::unexpected(
          Failure{fmt::format("rank {} has no room for its part of the checkpoint: the ranks here need "
                              "{} bytes of it, and {} may be downloaded",
                              rank, needed, cache_.space()),
                  true});
    }
    if (auto ok = make_room(fetch, parts, known.bytes); !ok) return failed(ok.error());
    if (auto ok = fetch.get_parts(parts); !ok) return failed(ok.error());
  }
  known_[rank] = known;
  return *folder;
}

}  // namespace lorikeet::actors
