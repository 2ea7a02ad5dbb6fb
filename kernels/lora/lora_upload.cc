#include "kernels/lora/lora_upload.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "kernels/base/thread_turns.h"

namespace lorikeet::kernels {
namespace {

constexpr int kLooks = 200;  // some 60 us where nobody else wants the core

}  // namespace

// The pieces of one copy, in order, each in the ring's place of its number. Threads: fill from any, the others from one.
class LoraUpload::Filling {
 public:
  Filling(std::span<const UploadPart> parts, unsigned char* ring, const ResidentMemory* memory)
      : ring_(ring), memory_(memory) {
    for (const UploadPart& part : parts) {
      for (uint64_t done = 0; done < part.bytes; done += kPieceBytes) {
        pieces_.push_back({static_cast<unsigned char*>(part.to) + done,
                           static_cast<const unsigned char*>(part.from) + done,
                           std::min(kPieceBytes, part.bytes - done)});
      }
    }
    filled_ = std::make_unique<std::atomic<bool>[]>(pieces_.size());
  }

  const std::vector<UploadPart>& pieces() const { return pieces_; }
  unsigned char* place(size_t piece) const { return ring_ + piece % kPieces * kPieceBytes; }

  // Fills until nothing is left to.
  void fill_all() {
    while (fill()) {
    }
  }

  // Returns once the piece is filled, by others or, where there are none, by this call. Its place is free.
  void wait_for(size_t piece, bool by_others) {
    if (!by_others) fill();
    // A thread that sleeps takes about as long to wake as a piece takes to be filled.
    for (int looks = 0; looks < kLooks && !filled_[piece].load(std::memory_order_acquire); ++looks) {
      std::this_thread::yield();
    }
    filled_[piece].wait(false, std::memory_order_acquire);
  }

  // Nothing more is filled: a place may be on its way still.
  void give_up() {
    next_ = pieces_.size();
    given_up_.store(true, std::memory_order_release);
    arrived(pieces_.size());
  }

  // The first `count` pieces are on the device: the places of the ring that they had are free.
  void arrived(size_t count) {
    arrived_.store(static_cast<uint32_t>(count), std::memory_order_release);
    arrived_.notify_all();
  }

 private:
  // The next piece, once its place is free. False: there is none.
  bool fill() {
    const size_t piece = next_++;
    if (piece >= pieces_.size()) return false;
    for (uint32_t arrived = arrived_.load(std::memory_order_acquire); piece >= arrived + kPieces;
         arrived = arrived_.load(std::memory_order_acquire)) {
      arrived_.wait(arrived, std::memory_order_acquire);
    }
    if (given_up_.load(std::memory_order_acquire)) return false;
    const UploadPart& from = pieces_[piece];
    if (memory_ == nullptr || !read(from, place(piece))) std::memcpy(place(piece), from.from, from.bytes);
    filled_[piece].store(true, std::memory_order_release);
    filled_[piece].notify_one();
    return true;
  }

  // From the memory's file. False: it cannot be.
  bool read(const UploadPart& piece, unsigned char* to) const {
    const auto offset = static_cast<const uint8_t*>(piece.from) - memory_->bytes().data();
    for (uint64_t done = 0; done < piece.bytes;) {
      const ssize_t count = pread(memory_->descriptor().get(), to + done, piece.bytes - done,
                                  static_cast<off_t>(offset) + static_cast<off_t>(done));
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0) return false;
      done += static_cast<uint64_t>(count);
    }
    return true;
  }

  unsigned char* const ring_;
  const ResidentMemory* const memory_;
  std::vector<UploadPart> pieces_;
  std::atomic<size_t> next_{0};
  std::unique_ptr<std::atomic<bool>[]> filled_;  // [pieces]
  std::atomic<uint32_t> arrived_{0};
  std::atomic<bool> given_up_{false};
};

// Threads that fill one copy after the other: starting them anew takes as long as a good part of a copy.
class LoraUpload::Fillers {
 public:
  // Fewer than wanted where no more can be had.
  explicit Fillers(size_t wanted) {
    threads_.reserve(wanted);
    try {
      while (threads_.size() < wanted) threads_.emplace_back([this] { run(); });
    } catch (const std::system_error&) {
    }
  }
  ~Fillers() {
    {
      const std::lock_guard lock(mutex_);
      closed_ = true;
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }
  Fillers(const Fillers&) = delete;
  Fillers& operator=(const Fillers&) = delete;

  bool exist() const { return !threads_.empty(); }

  void begin(Filling& filling) {
    {
      const std::lock_guard lock(mutex_);
      filling_ = &filling;
      ++round_;
    }
    wake_.notify_all();
  }

  // Returns once none of them is at it any more: nothing is left to fill.
  void end() {
    std::unique_lock lock(mutex_);
    filling_ = nullptr;
    idle_.wait(lock, [this] { return working_ == 0; });
  }

 private:
  void run() {
    work_in_background();
    std::unique_lock lock(mutex_);
    for (uint64_t seen = 0;;) {
      wake_.wait(lock, [&] { return closed_ || (filling_ != nullptr && round_ != seen); });
      if (closed_) return;
      seen = round_;
      Filling& filling = *filling_;
      ++working_;
      lock.unlock();
      filling.fill_all();
      lock.lock();
      if (--working_ == 0) idle_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_, idle_;
  Filling* filling_ = nullptr;  // null: none
  uint64_t round_ = 0;
  size_t working_ = 0;
  bool closed_ = false;
  std::vector<std::thread> threads_;
};

LoraUpload::LoraUpload() = default;
LoraUpload::~LoraUpload() = default;
LoraUpload::LoraUpload(LoraUpload&& other) noexcept = default;
LoraUpload& LoraUpload::operator=(LoraUpload&& other) noexcept = default;

Result<LoraUpload> LoraUpload::make(std::chrono::milliseconds longest_wait) {
  LoraUpload made;
  made.longest_wait_ = longest_wait;
  Result<Stream> stream = Stream::make();
  if (!stream) return tl::unexpected(stream.error());
  made.stream_ = std::move(*stream);
  Result<PinnedBuffer> ring = PinnedBuffer::allocate(kPieces * kPieceBytes, "adapters on their way");
  if (!ring) return tl::unexpected(ring.error());
  made.ring_ = std::move(*ring);
  for (PolledEvent& event : made.copied_) {
    Result<PolledEvent> copied = PolledEvent::make();
    if (!copied) return tl::unexpected(copied.error());
    event = std::move(*copied);
  }
  made.fillers_ =
      std::make_unique<Fillers>(std::clamp<size_t>(std::thread::hardware_concurrency() * 3 / 4, 1, kMostFillers));
  return made;
}

Result<void> LoraUpload::settled() {
  if (!late_) return {};
  if (!copied_[*late_].ready()) return fail("the GPU has not ended an earlier copy of an adapter yet");
  late_.reset();
  return {};
}

Result<void> LoraUpload::copy(std::span<const UploadPart> parts, const ResidentMemory* memory) {
  if (auto ok = settled(); !ok) return ok;
  Filling filling(parts, ring_.as<unsigned char>(), memory);
  fillers_->begin(filling);
  const std::vector<UploadPart>& pieces = filling.pieces();
  const auto give_up = [&](size_t sent, Result<void> why) {
    late_ = (sent - 1) % kPieces;
    filling.give_up();
    fillers_->end();
    return why;
  };
  for (size_t i = 0; i < pieces.size(); ++i) {
    if (i >= kOnTheWay) {
      if (auto ok = copied_[(i - kOnTheWay) % kPieces].wait(longest_wait_); !ok) return give_up(i, ok);
      filling.arrived(i - kOnTheWay + 1);
    }
    filling.wait_for(i, fillers_->exist());
    copy_to_device(pieces[i].to, filling.place(i), pieces[i].bytes, stream_);
    copied_[i % kPieces].record(stream_);
  }
  if (!pieces.empty()) {
    if (auto ok = copied_[(pieces.size() - 1) % kPieces].wait(longest_wait_); !ok) return give_up(pieces.size(), ok);
  }
  fillers_->end();
  return {};
}

}  // namespace lorikeet::kernels
