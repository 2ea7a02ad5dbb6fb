#include "kernels/lora/lora_upload.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <system_error>
#include <thread>
#include <utility>

namespace lorikeet::kernels {
namespace {

constexpr int kLooks = 200;  // some 60 us where nobody else wants the core

}  // namespace

Result<LoraUpload> LoraUpload::make() {
  LoraUpload made;
  Result<Stream> stream = Stream::make();
  if (!stream) return tl::unexpected(stream.error());
  made.stream_ = std::move(*stream);
  Result<PinnedBuffer> ring = PinnedBuffer::allocate(kPieces * kPieceBytes, "adapters on their way");
  if (!ring) return tl::unexpected(ring.error());
  made.ring_ = std::move(*ring);
  for (Event& event : made.copied_) {
    Result<Event> copied = Event::make();
    if (!copied) return tl::unexpected(copied.error());
    event = std::move(*copied);
  }
  return made;
}

// The pieces of one copy, in order, each in the ring's place of its number. Threads: fill from any, the others from one.
class LoraUpload::Filling {
 public:
  Filling(std::span<const UploadPart> parts, unsigned char* ring) : ring_(ring) {
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
    std::memcpy(place(piece), pieces_[piece].from, pieces_[piece].bytes);
    filled_[piece].store(true, std::memory_order_release);
    filled_[piece].notify_one();
    return true;
  }

  unsigned char* const ring_;
  std::vector<UploadPart> pieces_;
  std::atomic<size_t> next_{0};
  std::unique_ptr<std::atomic<bool>[]> filled_;  // [pieces]
  std::atomic<uint32_t> arrived_{0};
};

void LoraUpload::copy(std::span<const UploadPart> parts) {
  Filling filling(parts, ring_.as<unsigned char>());
  const size_t wanted =
      std::min({kMostFillers, filling.pieces().size(), std::max<size_t>(1, std::thread::hardware_concurrency() / 2)});
  std::vector<std::thread> fillers;
  fillers.reserve(wanted);
  try {
    while (fillers.size() < wanted) fillers.emplace_back([&filling] { filling.fill_all(); });
  } catch (const std::system_error&) {  // those that are there do it
  }
  const std::vector<UploadPart>& pieces = filling.pieces();
  for (size_t i = 0; i < pieces.size(); ++i) {
    if (i >= kOnTheWay) {
      copied_[(i - kOnTheWay) % kPieces].synchronize();
      filling.arrived(i - kOnTheWay + 1);
    }
    filling.wait_for(i, !fillers.empty());
    copy_to_device(pieces[i].to, filling.place(i), pieces[i].bytes, stream_);
    copied_[i % kPieces].record(stream_);
  }
  if (!pieces.empty()) copied_[(pieces.size() - 1) % kPieces].synchronize();
  for (std::thread& filler : fillers) filler.join();
}

}  // namespace lorikeet::kernels
